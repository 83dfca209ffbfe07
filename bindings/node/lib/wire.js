'use strict'
// Arguments and answers as bytes, as bindings/core/src/packed/codec.rs reads and writes them. Numbers are little-endian.

const op = {
  rawConnect: 1, txnsConnect: 2, withDeadline: 3, get: 4, put: 5, delete: 6, batchGet: 7, batchPut: 8, batchDelete: 9, deleteRange: 10,
  compareAndSwap: 11, ttl: 12, checksum: 13, scan: 14, next: 15, begin: 16, timestamp: 17, snapshot: 18, gc: 19, resolveLocks: 20,
  getForUpdate: 21, batchGetForUpdate: 22, insert: 23, lockKeys: 24, savepoint: 25, rollbackTo: 26, commit: 27, rollback: 28, metrics: 29,
}

/** What may be given for bytes: a Uint8Array (a Buffer is one) or a string, which stands for its UTF-8. */
function bytes(value) {
  if (value instanceof Uint8Array) return value
  if (typeof value === 'string') return Buffer.from(value)
  throw new TypeError(`wanted a Buffer, a Uint8Array or a string, not ${typeof value}`)
}

/** Collects arguments; sizes are known before a byte is copied. */
class Arguments {
  constructor() {
    this.parts = []
    this.size = 0
  }

  add(part, size) {
    this.parts.push(part)
    this.size += size
    return this
  }

  bytes(value) {
    const part = bytes(value)
    return this.add(part, 4 + part.length)
  }

  optional(value) {
    return value === undefined || value === null ? this.byte(0) : this.byte(1).bytes(value)
  }

  byte(value) {
    return this.add(value, 1)
  }

  u64(value) {
    return this.add(BigInt(value), 8)
  }

  /** A count of items, or any number of 32 bits. */
  u32(value) {
    return this.add({ u32: value }, 4)
  }

  keys(keys) {
    const list = Array.from(keys)
    this.u32(list.length)
    for (const key of list) this.bytes(key)
    return this
  }

  pairs(pairs) {
    const list = Array.from(pairs)
    this.u32(list.length)
    for (const [key, value] of list) this.bytes(key).bytes(value)
    return this
  }

  range(start, end) {
    return this.bytes(start ?? '').bytes(end ?? '')
  }

  pack() {
    const packed = Buffer.allocUnsafe(this.size)
    let at = 0
    for (const part of this.parts) {
      if (part instanceof Uint8Array) {
        at = packed.writeUInt32LE(part.length, at)
        packed.set(part, at)
        at += part.length
      } else if (typeof part === 'number') {
        at = packed.writeUInt8(part, at)
      } else if (typeof part === 'bigint') {
        at = packed.writeBigUInt64LE(part, at)
      } else {
        at = packed.writeUInt32LE(part.u32, at)
      }
    }
    return packed
  }
}

/** Reads one frame, whose length and id have been read. */
class Frame {
  constructor(buffer, at) {
    this.buffer = buffer
    this.at = at
  }

  byte() {
    return this.buffer[this.at++]
  }

  u32() {
    this.at += 4
    return this.buffer.readUInt32LE(this.at - 4)
  }

  u64() {
    this.at += 8
    return this.buffer.readBigUInt64LE(this.at - 8)
  }

  /** A copy: what is handed out must not keep a whole page alive, nor be changed with it. */
  bytes() {
    const length = this.u32()
    this.at += length
    return Buffer.from(this.buffer.subarray(this.at - length, this.at))
  }

  optional() {
    return this.byte() ? this.bytes() : undefined
  }

  text() {
    const length = this.u32()
    this.at += length
    return this.buffer.toString('utf8', this.at - length, this.at)
  }

  /** The answer of a call that did not fail. */
  reply() {
    switch (this.byte()) {
      case 0:
        return undefined
      case 1:
        return this.optional()
      case 2: {
        const pairs = new Array(this.u32())
        for (let index = 0; index < pairs.length; index++) pairs[index] = [this.bytes(), this.bytes()]
        return pairs
      }
      case 3:
        return { done: this.byte() === 1, previous: this.optional() }
      case 4: {
        const kind = this.byte()
        const seconds = Number(this.u64())
        return kind === 0 ? undefined : kind === 1 ? Infinity : seconds
      }
      case 5:
        return { crc64Xor: this.u64(), pairs: Number(this.u64()), bytes: Number(this.u64()) }
      case 6: {
        const there = this.byte()
        const number = this.u64()
        return there ? number : undefined
      }
      case 7:
        return { handle: Number(this.u64()), startTs: this.u64() }
      default:
        throw new Error('an answer that this package does not know: do extension and package have one version?')
    }
  }
}

module.exports = { op, Arguments, Frame }
