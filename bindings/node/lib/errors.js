'use strict'

/** A call failed. `kind` is one word, the same in every language; `hint` says what to do about it. */
class FerriteError extends Error {
  constructor(kind, message, hint, retryable, key) {
    super(`${message} (hint: ${hint})`)
    this.name = 'FerriteError'
    this.kind = kind
    this.code = `FERRITE_${kind.toUpperCase()}`
    this.hint = hint
    this.retryable = retryable
    this.key = key
  }
}

/** Kinds by their numbers. */
const kinds = [
  'ok', 'retryable', 'deadline', 'conflict', 'locked', 'deadlock', 'aborted', 'exists', 'undetermined', 'not_found', 'configuration', 'refused',
  'cancelled', 'closed', 'internal',
]

/** The error in a frame that says that a call failed. */
function failure(status, frame) {
  const message = frame.text()
  const hint = frame.text()
  const retryable = frame.byte() === 1
  return new FerriteError(kinds[status] ?? 'internal', message, hint, retryable, frame.optional())
}

module.exports = { FerriteError, failure }
