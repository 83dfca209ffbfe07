/** A client of Ferrite, and of every cluster that speaks its wire. All calls give promises and may be cancelled by a signal. */

/** Keys and values are bytes; a string stands for its UTF-8. */
export type Bytes = Uint8Array | string
export type Pair = [key: Buffer, value: Buffer]

export type Kind =
  | 'retryable' | 'deadline' | 'conflict' | 'locked' | 'deadlock' | 'aborted' | 'exists' | 'undetermined' | 'not_found' | 'configuration'
  | 'refused' | 'cancelled' | 'closed' | 'internal'

/** A call failed. */
export class FerriteError extends Error {
  /** One word, the same in every language. */
  readonly kind: Kind
  /** `FERRITE_` and the kind. */
  readonly code: string
  /** What to do about it. */
  readonly hint: string
  /** Whether all of it, for a transaction from its begin, may be tried again. */
  readonly retryable: boolean
  /** The key it is about, if it is about one. */
  readonly key?: Buffer
}

export interface CallOptions {
  /** Aborted, it cancels the request; the promise is rejected with its reason. What was to be written may be done or not. */
  signal?: AbortSignal
}

export interface ClientOptions extends CallOptions {
  /** Milliseconds that each call may take; 5000 if not given. */
  deadline?: number
  /** A keyspace of API V2 by its name. */
  keyspace?: string
  /** A keyspace of API V2 by its id. */
  keyspaceId?: number
  batchCommands?: boolean
  connections?: number
  retryUndetermined?: boolean
  answerBytesMax?: number
  /** For TLS, the authority of the cluster's certificates: the path of a PEM file, read again when it changes, or PEM text. */
  ca?: string
  /** A certificate to show to the cluster, as `ca`. */
  cert?: string
  /** The key of it, as `ca`. */
  key?: string
}

export interface ScanOptions extends CallOptions {
  /** The first key. */
  start?: Bytes
  /** The first key after the range; no bound if not given. */
  end?: Bytes
  /** Most pairs to give; all if not given. */
  limit?: number
  reverse?: boolean
  /** Leaves the values empty. */
  keysOnly?: boolean
}

export interface PutOptions extends CallOptions {
  /** Milliseconds that the key lives, rounded up to seconds; for ever if not given. */
  ttl?: number
}

export interface TransactionOptions extends CallOptions {
  /** Locks keys when they are written or read for update. */
  pessimistic?: boolean
  /** Milliseconds to wait for others' locks: 0 not at all; as long as the deadline allows if not given. */
  lockWait?: number
  asyncCommit?: boolean
  onePhase?: boolean
  causal?: boolean
  /** Milliseconds that each of its calls may take. */
  deadline?: number
}

export interface Swap {
  done: boolean
  /** What was there before, done or not. */
  previous?: Buffer
}

export interface Checksum {
  crc64Xor: bigint
  pairs: number
  bytes: number
}

declare class Held {
  /** Lets it go; later calls fail with the kind `closed`. What is not closed goes with the object. */
  close(): void
}

declare class Reader extends Held {
  /** Value of a key, undefined if there is none. */
  get(key: Bytes, options?: CallOptions): Promise<Buffer | undefined>
  /** The pairs of those keys that are there, by key. */
  batchGet(keys: Iterable<Bytes>, options?: CallOptions): Promise<Pair[]>
  /** Pairs of a range, page by page: `for await (const [key, value] of client.scan())`. */
  scan(options?: ScanOptions): AsyncGenerator<Pair, void, void>
}

/** Keys without transactions. */
export class RawClient extends Reader {
  private constructor()
  /** Connects through any of the placement driver's endpoints. */
  static connect(endpoints: string | Iterable<string>, options?: ClientOptions): Promise<RawClient>
  /** The same client, whose calls may take so long. */
  withDeadline(milliseconds: number): Promise<RawClient>
  /** What the client has done since it was connected, as the text that Prometheus reads. */
  metrics(): Promise<string>
  put(key: Bytes, value: Bytes, options?: PutOptions): Promise<void>
  delete(key: Bytes, options?: CallOptions): Promise<void>
  /** Sets all pairs, which is not one step. */
  batchPut(pairs: Iterable<[Bytes, Bytes]>, options?: PutOptions): Promise<void>
  batchDelete(keys: Iterable<Bytes>, options?: CallOptions): Promise<void>
  /** Removes all keys from `start` to before `end` (empty: no bound). */
  deleteRange(start: Bytes, end: Bytes, options?: CallOptions): Promise<void>
  /** Sets a key to `value` (undefined removes it) if its value is `expected` (undefined: if it is not there). Never repeated on an unknown outcome. */
  compareAndSwap(key: Bytes, expected: Bytes | undefined, value: Bytes | undefined, options?: CallOptions): Promise<Swap>
  /** Seconds that a key will live, Infinity for ever, undefined if it is not there. */
  ttl(key: Bytes, options?: CallOptions): Promise<number | undefined>
  /** Fingerprint of the pairs in a range. */
  checksum(start?: Bytes, end?: Bytes, options?: CallOptions): Promise<Checksum>
}

/** What was committed at or before a timestamp. */
export class Snapshot extends Reader {
  private constructor()
  readonly ts: bigint
}

/** A transaction. Closed before its end it is rolled back. */
export class Transaction extends Reader {
  private constructor()
  readonly startTs: bigint
  /** Locks a key and reads it, its latest value in a pessimistic transaction. */
  getForUpdate(key: Bytes, options?: CallOptions): Promise<Buffer | undefined>
  batchGetForUpdate(keys: Iterable<Bytes>, options?: CallOptions): Promise<Pair[]>
  put(key: Bytes, value: Bytes, options?: CallOptions): Promise<void>
  batchPut(pairs: Iterable<[Bytes, Bytes]>, options?: CallOptions): Promise<void>
  /** Sets a key that must not be there: fails with the kind `exists`, now or at commit. */
  insert(key: Bytes, value: Bytes, options?: CallOptions): Promise<void>
  delete(key: Bytes, options?: CallOptions): Promise<void>
  /** Keeps others from writing keys while the transaction is under way. */
  lockKeys(keys: Iterable<Bytes>, options?: CallOptions): Promise<void>
  /** Remembers the writes so far. */
  savepoint(options?: CallOptions): Promise<bigint>
  /** Undoes the writes since a savepoint; locks stay. */
  rollbackTo(savepoint: bigint, options?: CallOptions): Promise<void>
  /** Commits; gives the commit timestamp, undefined if there was nothing to write. Goes on if it is cancelled. */
  commit(options?: CallOptions): Promise<bigint | undefined>
  rollback(options?: CallOptions): Promise<void>
}

/** A client for transactions. */
export class TxnClient extends Held {
  private constructor()
  static connect(endpoints: string | Iterable<string>, options?: ClientOptions): Promise<TxnClient>
  /** The same client, whose calls, and those of its transactions, may take so long. */
  withDeadline(milliseconds: number): Promise<TxnClient>
  /** What the client has done since it was connected, as the text that Prometheus reads. */
  metrics(): Promise<string>
  begin(options?: TransactionOptions): Promise<Transaction>
  /** Runs `work` in a transaction, which is committed when it is done and rolled back if it throws. */
  transaction<T>(work: (txn: Transaction) => Promise<T>, options?: TransactionOptions): Promise<T>
  /** A timestamp greater than every one before. */
  timestamp(options?: CallOptions): Promise<bigint>
  /** Reads as of `ts`; the latest of each key if it is not given. */
  snapshot(ts?: bigint): Promise<Snapshot>
  /** Ends what dead clients left and lets stores drop old versions; gives the safe point as it is then. */
  gc(safePoint: bigint, options?: CallOptions): Promise<bigint>
  /** Ends transactions that began up to `ts` and left locks in the range; gives how many locks. */
  resolveLocks(start: Bytes, end: Bytes, ts: bigint, options?: CallOptions): Promise<bigint>
}

/** The timestamp of a snapshot that reads the latest of each key. */
export const LATEST: bigint
