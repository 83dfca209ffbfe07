'use strict'
// A queue of tasks for many workers, in transactions: each task is done once, also if a worker dies in the middle.
//
//   task_queue.js [--pd ADDRESSES] [--ca FILE --cert FILE --key FILE] [--tasks N] [--workers N]
//
// Tasks lie under `queue/todo/`; who takes one moves it to `queue/done/` in the transaction in which its result is written, so that nobody else can.
const { parseArgs } = require('node:util')
const { TxnClient } = require('ferrite-client')

const TODO = { start: 'queue/todo/', end: 'queue/todo0' }
const DONE = { start: 'queue/done/', end: 'queue/done0' }

/** Tasks are added all at once; what an earlier run left is forgotten. */
function add(txns, tasks) {
  return txns.transaction(async (txn) => {
    for (const range of [TODO, DONE]) for await (const [key] of txn.scan({ ...range, keysOnly: true })) await txn.delete(key)
    await txn.batchPut(Array.from({ length: tasks }, (_, task) => [TODO.start + String(task).padStart(6, '0'), String(task)]))
  })
}

/** A task that is now ours; undefined if somebody else is at it, or was. */
async function lock(txn, key) {
  try {
    return await txn.getForUpdate(key)
  } catch (error) {
    if (error.kind !== 'locked' && error.kind !== 'conflict') throw error
  }
}

/** Does the first task that nobody else holds; false if none is left. */
async function takeOne(txn, worker) {
  let isEmpty = true
  for await (const [key] of txn.scan({ ...TODO, limit: 32, keysOnly: true })) {
    isEmpty = false
    const task = await lock(txn, key)
    if (task === undefined) continue
    await txn.put(DONE.start + key.toString().slice(TODO.start.length), `${Number(task) ** 2} by worker ${worker}`)
    await txn.delete(key)
    return true
  }
  return !isEmpty
}

async function work(txns, worker) {
  for (let isLeft = true; isLeft; ) {
    try {
      isLeft = await txns.transaction((txn) => takeOne(txn, worker), { pessimistic: true, lockWait: 0 })
    } catch (error) {
      if (!error.retryable) throw error
    }
  }
}

async function main({ pd = '127.0.0.1:2379', ca, cert, key, tasks = '100', workers = '8' }) {
  const txns = await TxnClient.connect(pd, { deadline: 20_000, ca, cert, key })
  await add(txns, Number(tasks))
  await Promise.all(Array.from({ length: Number(workers) }, (_, worker) => work(txns, worker)))
  const snapshot = await txns.snapshot()
  const by = new Set()
  let [done, left] = [0, 0]
  for await (const [, value] of snapshot.scan(DONE)) {
    by.add(value.toString().split(' ').at(-1))
    done++
  }
  for await (const _ of snapshot.scan(TODO)) left++
  if (done !== Number(tasks) || left > 0) throw new Error(`${done} done, ${left} left`)
  console.log(`${done} tasks done once each, by ${by.size} workers`)
  txns.close()
}

const text = { type: 'string' }
main(parseArgs({ options: { pd: text, ca: text, cert: text, key: text, tasks: text, workers: text } }).values)
