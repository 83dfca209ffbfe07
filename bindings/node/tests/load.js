'use strict'
// Load for `cargo xtask bench clients` and `cargo xtask bindings soak`; what it does is said in bindings/conformance/src/load.rs.
//
//   load.js ENDPOINTS KEYSPACE MODE IN_FLIGHT AMOUNT PREFIX

const { performance } = require('node:perf_hooks')
const { setTimeout: sleep } = require('node:timers/promises')
const { RawClient, TxnClient, FerriteError } = require('..')

const KEYS = 10_000
const SLOTS = 8
const VALUE = Buffer.alloc(100, 'v')

/** Calls as fast as they come, measured after a warm-up of half the time. */
async function bench(raw, txns, mode, inFlight, milliseconds, prefix) {
  let latencies = []
  let failures = 0
  let isOver = false
  const key = (number) => `${prefix}/k/${String(number % KEYS).padStart(6, '0')}`
  const calls = {
    get: (number) => raw.get(key(number)),
    put: (number) => raw.put(key(number), VALUE),
    txn: async (number, worker) => {
      const txn = await txns.begin()
      await txn.put(`${prefix}/t/${worker}/${number % 100}/a`, VALUE)
      await txn.put(`${prefix}/t/${worker}/${number % 100}/b`, VALUE)
      await txn.commit()
      txn.close()
    },
  }
  const call = calls[mode]
  const work = async (worker) => {
    let number = worker * 7919
    while (!isOver) {
      number = (Math.imul(number, 1103515245) + 12345) & 0x7fffffff
      const begun = performance.now()
      try {
        await call(number >> 8, worker)
      } catch (error) {
        if (!(error instanceof FerriteError)) throw error
        failures++
      }
      latencies.push(performance.now() - begun)
    }
  }
  const workers = Array.from({ length: inFlight }, (_, worker) => work(worker))
  await sleep(milliseconds / 2)
  latencies = []
  failures = 0
  const begun = performance.now()
  const cpu = process.cpuUsage()
  await sleep(milliseconds)
  const used = process.cpuUsage(cpu)
  const seconds = (performance.now() - begun) / 1000
  const found = Float64Array.from(latencies).sort()
  const failed = failures
  isOver = true
  await Promise.all(workers)
  const at = (share) => (found.length === 0 ? null : found[Math.floor(found.length * share)] * 1000)
  return { operations: found.length, seconds, cpu_seconds: (used.user + used.system) / 1e6, p50_us: at(0.5), p99_us: at(0.99), failures: failed }
}

/** Operations whose every answer is checked against what the worker did before. */
async function soak(raw, txns, inFlight, operations, prefix) {
  let begun = 0
  let undetermined = 0
  let failed = 0
  const wrong = (what, found, wanted) => {
    throw new Error(`${what} is ${found}, wanted ${wanted}`)
  }
  const countUp = async (pair, count) => {
    const txn = await txns.begin()
    try {
      for (const key of [`${pair}a`, `${pair}b`]) {
        const found = Number((await txn.get(key)) ?? 0)
        if (found !== count) wrong(key, found, count)
        await txn.put(key, String(count + 1))
      }
      await txn.commit()
    } finally {
      txn.close()
    }
  }
  const work = async (worker) => {
    const generations = new Array(SLOTS).fill(0)
    const expected = new Array(SLOTS).fill(undefined)
    let pair = 0
    let count = 0
    while (begun < operations) {
      const number = ++begun
      const slot = number % SLOTS
      const kind = Math.floor(number / SLOTS) % 20
      const key = `${prefix}/${worker}/${slot}/${generations[slot]}`
      try {
        if (kind < 10) {
          const found = (await raw.get(key))?.toString()
          if (found !== expected[slot]) wrong(key, found, expected[slot])
        } else if (kind < 17) {
          const value = `${worker}:${number}:${VALUE}`
          await raw.put(key, value)
          expected[slot] = value
        } else {
          await countUp(`${prefix}/${worker}/t${pair}`, count)
          count++
        }
      } catch (error) {
        if (!(error instanceof FerriteError)) throw error
        if (error.kind === 'undetermined') {
          // A write that may still come: its keys are not looked at again.
          undetermined++
          if (kind < 17) {
            generations[slot]++
            expected[slot] = undefined
          } else {
            pair++
            count = 0
          }
        } else {
          failed++
          if (!error.retryable) throw error
        }
      }
    }
  }
  const progress = setInterval(() => console.log(`progress ${begun}`), 1000)
  await Promise.all(Array.from({ length: inFlight }, (_, worker) => work(worker)))
  clearInterval(progress)
  return { operations: begun, undetermined, failed }
}

async function main(endpoints, keyspace, mode, inFlight, amount, prefix) {
  const options = { keyspace: keyspace === '-' ? undefined : keyspace, deadline: 20_000 }
  const raw = await RawClient.connect(endpoints, options)
  const txns = await TxnClient.connect(endpoints, options)
  const run = mode === 'soak' ? soak(raw, txns, inFlight, amount, prefix) : bench(raw, txns, mode, inFlight, amount, prefix)
  console.log(JSON.stringify(await run))
}

const [endpoints, keyspace, mode, inFlight, amount, prefix] = process.argv.slice(2)
main(endpoints, keyspace, mode, Number(inFlight), Number(amount), prefix)
