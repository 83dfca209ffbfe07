'use strict'

const { op, Arguments } = require('./lib/wire')
const { start, Held } = require('./lib/calls')
const { FerriteError } = require('./lib/errors')

/** The timestamp of a snapshot that reads the latest of each key. */
const LATEST = 2n ** 64n - 1n

const none = new Arguments()
const key = (value) => new Arguments().bytes(value)
const keysOf = (values) => new Arguments().keys(values)

/** Options as text: the library knows their names, and tells faults. */
function text(options = {}) {
  const dashed = (name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  const value = (name, given) => (typeof given === 'number' && /[dD]eadline|lockWait/.test(name) ? `${given}ms` : given)
  return Object.entries(options)
    .filter(([name, given]) => given !== undefined && name !== 'signal')
    .map(([name, given]) => `${dashed(name)}=${value(name, given)}`)
    .join(',')
}

function connect(operation, endpoints, options) {
  const list = typeof endpoints === 'string' ? endpoints : Array.from(endpoints).join(',')
  return start(0, operation, new Arguments().bytes(list).bytes(text(options)), options?.signal)
}

/** What a client has done, as the text that Prometheus reads. */
const metrics = async (client) => (await start(client.handle, op.metrics, none)).toString()

/** The pairs of a range, page by page; of a source that may still have to be made. */
async function* pages(source, options) {
  const { start: from, end, limit = 0, reverse = false, keysOnly = false, signal } = options ?? {}
  const args = new Arguments().range(from, end).u64(limit).byte(reverse ? 1 : 0).byte(keysOnly ? 1 : 0)
  const scan = new Held(Number(await start(source.handle, op.scan, args, signal)))
  try {
    for (;;) {
      const page = await start(scan.handle, op.next, new Arguments().u32(0), signal)
      if (page.length === 0) return
      yield* page
    }
  } finally {
    scan.close()
  }
}

/** What all that can be read from has. */
class Reader extends Held {
  get(k, options) {
    return start(this.handle, op.get, key(k), options?.signal)
  }

  batchGet(keys, options) {
    return start(this.handle, op.batchGet, keysOf(keys), options?.signal)
  }

  scan(options) {
    return pages(this, options)
  }
}

class RawClient extends Reader {
  static async connect(endpoints, options) {
    return new RawClient((await connect(op.rawConnect, endpoints, options)).handle)
  }

  async withDeadline(milliseconds) {
    return new RawClient((await start(this.handle, op.withDeadline, new Arguments().u64(milliseconds))).handle)
  }

  metrics() {
    return metrics(this)
  }

  put(k, value, options) {
    return start(this.handle, op.put, key(k).bytes(value).u64(options?.ttl ?? 0), options?.signal)
  }

  delete(k, options) {
    return start(this.handle, op.delete, key(k), options?.signal)
  }

  batchPut(pairs, options) {
    return start(this.handle, op.batchPut, new Arguments().pairs(pairs).u64(options?.ttl ?? 0), options?.signal)
  }

  batchDelete(keys, options) {
    return start(this.handle, op.batchDelete, keysOf(keys), options?.signal)
  }

  deleteRange(from, end, options) {
    return start(this.handle, op.deleteRange, new Arguments().range(from, end), options?.signal)
  }

  compareAndSwap(k, expected, value, options) {
    return start(this.handle, op.compareAndSwap, key(k).optional(expected).optional(value), options?.signal)
  }

  ttl(k, options) {
    return start(this.handle, op.ttl, key(k), options?.signal)
  }

  checksum(from, end, options) {
    return start(this.handle, op.checksum, new Arguments().range(from, end), options?.signal)
  }
}

class Snapshot extends Reader {
  constructor(handle, ts) {
    super(handle)
    this.ts = ts
  }
}

class Transaction extends Reader {
  constructor({ handle, startTs }) {
    super(handle)
    this.startTs = startTs
    this.ended = false
  }

  getForUpdate(k, options) {
    return start(this.handle, op.getForUpdate, key(k), options?.signal)
  }

  batchGetForUpdate(keys, options) {
    return start(this.handle, op.batchGetForUpdate, keysOf(keys), options?.signal)
  }

  put(k, value, options) {
    return start(this.handle, op.put, key(k).bytes(value), options?.signal)
  }

  batchPut(pairs, options) {
    return start(this.handle, op.batchPut, new Arguments().pairs(pairs), options?.signal)
  }

  insert(k, value, options) {
    return start(this.handle, op.insert, key(k).bytes(value), options?.signal)
  }

  delete(k, options) {
    return start(this.handle, op.delete, key(k), options?.signal)
  }

  lockKeys(keys, options) {
    return start(this.handle, op.lockKeys, keysOf(keys), options?.signal)
  }

  savepoint(options) {
    return start(this.handle, op.savepoint, none, options?.signal)
  }

  rollbackTo(savepoint, options) {
    return start(this.handle, op.rollbackTo, new Arguments().u64(savepoint), options?.signal)
  }

  commit(options) {
    this.ended = true
    return start(this.handle, op.commit, none, options?.signal)
  }

  rollback(options) {
    this.ended = true
    return start(this.handle, op.rollback, none, options?.signal)
  }
}

class TxnClient extends Held {
  static async connect(endpoints, options) {
    return new TxnClient((await connect(op.txnsConnect, endpoints, options)).handle)
  }

  async withDeadline(milliseconds) {
    return new TxnClient((await start(this.handle, op.withDeadline, new Arguments().u64(milliseconds))).handle)
  }

  metrics() {
    return metrics(this)
  }

  async begin(options) {
    const given = options?.lockWait === 0 ? { ...options, lockWait: 'no' } : options
    return new Transaction(await start(this.handle, op.begin, new Arguments().bytes(text(given)), options?.signal))
  }

  async transaction(work, options) {
    const txn = await this.begin(options)
    try {
      const answer = await work(txn)
      if (!txn.ended) await txn.commit({ signal: options?.signal })
      return answer
    } catch (error) {
      if (!txn.ended) await txn.rollback().catch(() => {})
      throw error
    } finally {
      txn.close()
    }
  }

  timestamp(options) {
    return start(this.handle, op.timestamp, none, options?.signal)
  }

  async snapshot(ts = LATEST) {
    return new Snapshot(Number(await start(this.handle, op.snapshot, new Arguments().u64(ts))), ts)
  }

  gc(safePoint, options) {
    return start(this.handle, op.gc, new Arguments().u64(safePoint), options?.signal)
  }

  resolveLocks(from, end, ts, options) {
    return start(this.handle, op.resolveLocks, new Arguments().range(from, end).u64(ts), options?.signal)
  }
}

module.exports = { RawClient, TxnClient, Transaction, Snapshot, FerriteError, LATEST }
