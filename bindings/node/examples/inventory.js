'use strict'
// An inventory with pessimistic locks: many buyers, no item sold twice.
//
//   inventory.js [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--stock N] [--buyers N]
const { parseArgs } = require('node:util')
const { TxnClient } = require('ferrite-client')

const ITEMS = ['inventory/apples', 'inventory/pears']
const SOLD = { start: 'inventory/sold/', end: 'inventory/sold0' }

/** What an earlier run sold is forgotten. */
function fill(txns, stock) {
  return txns.transaction(async (txn) => {
    for await (const [key] of txn.scan({ ...SOLD, keysOnly: true })) await txn.delete(key)
    await txn.batchPut(ITEMS.map((item) => [item, String(stock)]))
  })
}

/** One of each item, or none; tried again when others were in the way. */
async function buy(txns, buyer) {
  for (;;) {
    try {
      return await txns.transaction(async (txn) => {
        const stock = []
        // In one order, so that buyers do not wait for each other in a circle.
        for (const item of ITEMS) stock.push(Number((await txn.getForUpdate(item)) ?? 0))
        if (Math.min(...stock) === 0) return false
        for (const [at, item] of ITEMS.entries()) await txn.put(item, String(stock[at] - 1))
        await txn.insert(SOLD.start + String(buyer).padStart(6, '0'), 'one of each')
        return true
      }, { pessimistic: true })
    } catch (error) {
      if (!error.retryable) throw error
    }
  }
}

async function main({ pd = '127.0.0.1:2379', ca, cert, key, stock = '20', buyers = '32' }) {
  const txns = await TxnClient.connect(pd, { deadline: 20_000, ca, cert, key })
  await fill(txns, stock)
  const served = (await Promise.all(Array.from({ length: Number(buyers) }, (_, buyer) => buy(txns, buyer)))).filter(Boolean).length
  const snapshot = await txns.snapshot()
  let sold = 0
  for await (const _ of snapshot.scan(SOLD)) sold++
  const left = (await snapshot.batchGet(ITEMS)).map(([, value]) => Number(value))
  if (sold !== served || served !== Math.min(stock, buyers) || left.some((count) => count !== stock - sold))
    throw new Error(`${sold} sold, ${served} served, ${left} left`)
  console.log(`${served} of ${buyers} buyers served, ${left[0]} of each left`)
  txns.close()
}

const text = { type: 'string' }
main(parseArgs({ options: { pd: text, ca: text, cert: text, key: text, stock: text, buyers: text } }).values)
