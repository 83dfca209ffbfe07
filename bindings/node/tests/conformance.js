'use strict'
// The runner of the conformance suite: operations come on standard input, see bindings/conformance/src/protocol.rs.

const readline = require('node:readline')
const { RawClient, TxnClient, FerriteError } = require('..')

const handles = new Map()
const aborts = new Map()

const bytes = (text) => Buffer.from(text ?? '', 'hex')
const list = (text) => (text ?? '').split(',').filter(Boolean)
const say = (text) => process.stdout.write(`${text.trimEnd()}\n`)
const valueText = (value) => (value === undefined ? '' : `value=${value.toString('hex')}`)
const numberText = (number) => (number === undefined ? '' : `number=${number}`)
const pairsText = (pairs) => `pairs=${pairs.map(([key, value]) => `${key.toString('hex')}:${value.toString('hex')}`).join(',')}`

/** The options of a case as an object. */
function options(text, signal) {
  const found = { signal }
  for (const option of list(text)) {
    const [name, value = 'true'] = option.split('=')
    const camel = name.replace(/-[a-z]/g, (part) => part[1].toUpperCase())
    const time = /^(\d+)(ms|s)$/.exec(value)
    if (time) found[camel] = Number(time[1]) * (time[2] === 's' ? 1000 : 1)
    else if (value === 'no') found[camel] = 0
    else found[camel] = value === 'true' ? true : value === 'false' ? false : value
  }
  return found
}

async function operate(operation, line, signal) {
  const given = { signal }
  if (operation === 'raw.connect' || operation === 'txns.connect') {
    const kind = operation === 'raw.connect' ? RawClient : TxnClient
    handles.set(line.as, await kind.connect(line.endpoints, options(line.options, signal)))
    return ''
  }
  const on = handles.get(line.on)
  if (operation === 'drop') {
    handles.delete(line.on)
    on.close()
    return ''
  }
  const [object, verb] = operation.split('.')
  const keys = list(line.keys).map(bytes)
  const pairs = list(line.pairs).map((pair) => pair.split(':').map(bytes))
  if (line.ttl_ms !== undefined) given.ttl = Number(line.ttl_ms)
  switch (verb) {
    case 'get':
      return valueText(await on.get(bytes(line.key), given))
    case 'get_for_update':
      return valueText(await on.getForUpdate(bytes(line.key), given))
    case 'batch_get':
      return pairsText(await on.batchGet(keys, given))
    case 'batch_get_for_update':
      return pairsText(await on.batchGetForUpdate(keys, given))
    case 'put':
      await on.put(bytes(line.key), bytes(line.value), given)
      return ''
    case 'insert':
      await on.insert(bytes(line.key), bytes(line.value), given)
      return ''
    case 'delete':
      await on.delete(bytes(line.key), given)
      return ''
    case 'batch_put':
      await on.batchPut(pairs, given)
      return ''
    case 'batch_delete':
      await on.batchDelete(keys, given)
      return ''
    case 'lock_keys':
      await on.lockKeys(keys, given)
      return ''
    case 'delete_range':
      await on.deleteRange(bytes(line.start), bytes(line.end), given)
      return ''
    case 'checksum':
      return numberText((await on.checksum(bytes(line.start), bytes(line.end), given)).pairs)
    case 'compare_and_swap': {
      const [expected, value] = [line.expected, line.new].map((text) => (text === undefined ? undefined : bytes(text)))
      const swap = await on.compareAndSwap(bytes(line.key), expected, value, given)
      return `swapped=${swap.done} ${valueText(swap.previous)}`
    }
    case 'ttl': {
      const left = await on.ttl(bytes(line.key), given)
      return `ttl=${left === undefined ? 'missing' : left === Infinity ? 'forever' : left}`
    }
    case 'scan': {
      const scan = on.scan({
        start: bytes(line.start), end: bytes(line.end), limit: Number(line.limit ?? 0), reverse: line.reverse === 'true',
        keysOnly: line.keys_only === 'true', signal,
      })
      const found = []
      for await (const pair of scan) {
        found.push(pair)
        if (found.length === Number(line.stop ?? 0)) break
      }
      return pairsText(found)
    }
    case 'begin':
      handles.set(line.as, await on.begin(options(line.options, signal)))
      return ''
    case 'timestamp':
      return numberText(await on.timestamp(given))
    case 'snapshot':
      handles.set(line.as, await on.snapshot(BigInt(line.ts)))
      return ''
    case 'metrics':
      return valueText(Buffer.from(await on.metrics()))
    case 'savepoint':
      return numberText(await on.savepoint(given))
    case 'rollback_to':
      await on.rollbackTo(BigInt(line.savepoint), given)
      return ''
    case 'commit':
      return numberText(await on.commit(given))
    case 'rollback':
      await on.rollback(given)
      return ''
    default:
      throw new Error(`the runner does not know ${object}.${verb}`)
  }
}

async function serve(id, operation, line) {
  const abort = new AbortController()
  aborts.set(id, abort)
  const hex = (text) => Buffer.from(text).toString('hex')
  try {
    say(`${id} ok ${await operate(operation, line, abort.signal)}`)
  } catch (error) {
    if (error === abort.signal.reason) say(`${id} error class=cancelled retryable=false`)
    else if (error instanceof FerriteError)
      say(`${id} error class=${error.kind} retryable=${error.retryable} hint=${hex(error.hint)} message=${hex(error.message)}`)
    else say(`${id} error class=case retryable=false message=${hex(String(error.stack))}`)
  } finally {
    aborts.delete(id)
  }
}

readline.createInterface({ input: process.stdin }).on('line', (text) => {
  const [id, operation, ...parts] = text.split(' ')
  const line = Object.fromEntries(parts.map((part) => [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)]))
  if (operation === 'cancel') {
    aborts.get(line.call)?.abort()
    say(`${id} ok`)
  } else {
    serve(id, operation, line)
  }
})
