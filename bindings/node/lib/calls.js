'use strict'
// Starts calls, and hands their ends to promises. All ends that wait are fetched at once.

const native = require('../ferrite.node')
const { Frame } = require('./wire')
const { failure } = require('./errors')

/** Calls under way, by id. */
const calls = new Map()
let last = 0
/** Keeps the process alive while there are calls: the extension alone does not. */
let alive

function settle() {
  finish(native.take())
}

/** Hands the ends of calls to their promises. */
function finish(ends) {
  let at = 0
  while (at < ends.length) {
    const length = ends.readUInt32LE(at)
    const id = Number(ends.readBigUInt64LE(at + 4))
    const frame = new Frame(ends, at + 12)
    at += 4 + length
    const call = calls.get(id)
    if (call === undefined) continue
    calls.delete(id)
    const status = frame.byte()
    if (status === 0) call.resolve(frame.reply())
    else call.reject(failure(status, frame))
  }
  if (calls.size === 0 && alive !== undefined) {
    clearInterval(alive)
    alive = undefined
  }
}

native.open(settle)

/**
 * Starts an operation and gives the promise of its answer. An aborted signal cancels the request and rejects with the signal's reason.
 */
function start(handle, operation, args, signal) {
  if (signal?.aborted) return Promise.reject(signal.reason)
  const id = ++last
  return new Promise((resolve, reject) => {
    if (signal === undefined || signal === null) {
      calls.set(id, { resolve, reject })
    } else {
      const abort = () => native.cancel(id)
      signal.addEventListener('abort', abort, { once: true })
      calls.set(id, {
        resolve: (answer) => {
          signal.removeEventListener('abort', abort)
          resolve(answer)
        },
        reject: (error) => {
          signal.removeEventListener('abort', abort)
          reject(error.kind === 'cancelled' && signal.aborted ? signal.reason : error)
        },
      })
    }
    try {
      const ended = native.submit(handle, operation, id, args.pack(), signal !== undefined && signal !== null)
      if (ended) finish(ended)
      else if (alive === undefined) alive = setInterval(() => {}, 1 << 30)
    } catch (error) {
      calls.delete(id)
      reject(error)
    }
  })
}

/** Lets handles go with the objects that hold them, for those who do not close them. */
const handles = new FinalizationRegistry((handle) => native.free(handle))

/** What holds a handle. */
class Held {
  #handle

  constructor(handle) {
    this.#handle = handle
    handles.register(this, handle, this)
  }

  get handle() {
    return this.#handle
  }

  /** Lets the handle go; later calls fail with the kind `closed`. A transaction that has not ended is rolled back. */
  close() {
    if (this.#handle === 0) return
    handles.unregister(this)
    native.free(this.#handle)
    this.#handle = 0
  }
}

/** Handles that are held, for tests of leaks. */
const held = () => Number(native.handles())

module.exports = { start, Held, held }
