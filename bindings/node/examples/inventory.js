'use strict'
// An inventory with pessimistic locks: many buyers, no item sold twice.
//
//   inventory.js [ENDPOINTS [STOCK [BUYERS]]]
const { TxnClient } = require('ferrite-client')

const ITEMS = ['inventory/apples', 'inventory/pears']

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
        await txn.insert(`inventory/sold/${String(buyer).padStart(6, '0')}`, 'one of each')
        return true
      }, { pessimistic: true })
    } catch (error) {
      if (!error.retryable) throw error
    }
  }
}

async function main(endpoints = '127.0.0.1:2379', stock = 20, buyers = 32) {
  const txns = await TxnClient.connect(endpoints, { deadline: 20_000 })
  await txns.transaction((txn) => txn.batchPut(ITEMS.map((item) => [item, String(stock)])))
  const served = (await Promise.all(Array.from({ length: Number(buyers) }, (_, buyer) => buy(txns, buyer)))).filter(Boolean).length
  const snapshot = await txns.snapshot()
  let sold = 0
  for await (const _ of snapshot.scan({ start: 'inventory/sold/', end: 'inventory/sold0' })) sold++
  const left = (await snapshot.batchGet(ITEMS)).map(([, value]) => Number(value))
  if (sold !== served || served !== Math.min(stock, buyers) || left.some((count) => count !== stock - sold))
    throw new Error(`${sold} sold, ${served} served, ${left} left`)
  console.log(`${served} of ${buyers} buyers served, ${left[0]} of each left`)
  txns.close()
}

main(...process.argv.slice(2))
