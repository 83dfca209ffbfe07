// Compiled only: the types are those that users need.
import { FerriteError, LATEST, RawClient, TxnClient, type Kind } from '../index.js'

export async function use(): Promise<number> {
  const raw = await RawClient.connect(['127.0.0.1:2379'], { deadline: 500 })
  await raw.put('key', Buffer.from([0, 255]), { ttl: 1000, signal: AbortSignal.timeout(100) })
  const value: Buffer | undefined = await raw.get('key')
  const swap = await raw.compareAndSwap('key', value, undefined)
  const ttl: number | undefined = await raw.ttl('key')
  let pairs = 0
  for await (const [key, value] of raw.scan({ start: 'a', reverse: true })) pairs += key.length + value.length
  const told: string = await raw.metrics()
  pairs += told.length
  raw.close()

  const txns = await TxnClient.connect('127.0.0.1:2379')
  const sum: number = await txns.transaction(async (txn) => {
    await txn.insert('a', swap.previous ?? '')
    return (await txn.getForUpdate('b'))?.length ?? 0
  }, { pessimistic: true, lockWait: 0 })
  const snapshot = await txns.snapshot(LATEST)
  try {
    await snapshot.batchGet(['a', Buffer.from('b')])
  } catch (error) {
    if (!(error instanceof FerriteError)) throw error
    const kind: Kind = error.kind
    console.log(kind, error.hint, error.retryable, error.key)
  }
  // @ts-expect-error: a number is no key
  await raw.get(1)
  return pairs + sum + (ttl ?? 0)
}
