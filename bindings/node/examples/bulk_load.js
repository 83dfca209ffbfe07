'use strict'
// Loads many pairs as fast as the cluster takes them, a few batches in flight, with a bar of progress.
//
//   bulk_load.js [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--pairs N]
const { parseArgs } = require('node:util')
const { RawClient } = require('ferrite-client')

const BATCH = 512
const IN_FLIGHT = 8

function* batches(pairs) {
  for (let first = 0; first < pairs; first += BATCH) {
    const length = Math.min(BATCH, pairs - first)
    yield Array.from({ length }, (_, at) => [`bulk/${String(first + at).padStart(9, '0')}`, `value of ${first + at}`])
  }
}

/** Puts a batch, again and again while that may help. */
async function put(client, batch) {
  for (;;) {
    try {
      return await client.batchPut(batch)
    } catch (error) {
      // Putting the same again does no harm, so an unknown outcome may be tried again too.
      if (!error.retryable && error.kind !== 'undetermined') throw error
    }
  }
}

async function main({ pd = '127.0.0.1:2379', ca, cert, key, pairs: wanted = '20000' }) {
  const pairs = Number(wanted)
  const client = await RawClient.connect(pd, { deadline: 30_000, ca, cert, key })
  await client.deleteRange('bulk/', 'bulk0')
  const begun = performance.now()
  let done = 0
  // All loaders take from one source: as many batches are in flight as there are loaders.
  const source = batches(pairs)
  const load = async () => {
    for (const batch of source) {
      await put(client, batch)
      done += batch.length
      const bar = '#'.repeat((40 * done) / pairs).padEnd(40)
      process.stderr.write(`\r[${bar}] ${done}/${pairs} pairs, ${Math.round((1000 * done) / (performance.now() - begun))}/s`)
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, load))
  process.stderr.write('\n')
  const sum = await client.checksum('bulk/', 'bulk0')
  if (sum.pairs !== pairs) throw new Error(`${sum.pairs} pairs are there`)
  console.log(`${sum.pairs} pairs loaded`)
  client.close()
}

const text = { type: 'string' }
main(parseArgs({ options: { pd: text, ca: text, cert: text, key: text, pairs: text } }).values)
