//! Bytes, ranges and texts as C sees them.

use std::ffi::{CStr, c_char};

use binding::{Ask, Bytes, Failure};

/// Bytes of somebody else; binary, may hold zeros. `data` may be NULL if `len` is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slice {
    pub data: *const u8,
    pub len: usize,
}

/// A key and its value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pair {
    pub key: Slice,
    pub value: Slice,
}

/// What a scan shall give.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ScanRange {
    /// The first key.
    pub start: Slice,
    /// The first key after the range; empty for no bound.
    pub end: Slice,
    /// Most pairs to give; 0 for all.
    pub limit: u64,
    /// From the end of the range to its start.
    pub reverse: bool,
    /// Leaves the values empty.
    pub keys_only: bool,
}

impl Slice {
    pub(crate) fn of(bytes: &[u8]) -> Slice {
        Slice {
            data: bytes.as_ptr(),
            len: bytes.len(),
        }
    }

    /// A copy.
    ///
    /// # Safety
    /// `data` must point to `len` bytes.
    pub(crate) unsafe fn copy(self) -> Bytes {
        if self.len == 0 {
            return Bytes::new();
        }
        assert!(!self.data.is_null(), "bytes are NULL, but their length is {}", self.len);
        // SAFETY: not null, and the caller says that so many bytes are there.
        Bytes::copy_from_slice(unsafe { std::slice::from_raw_parts(self.data, self.len) })
    }
}

impl ScanRange {
    /// A copy.
    ///
    /// # Safety
    /// `range` must point to one, with borders that [`Slice::copy`] may read.
    pub(crate) unsafe fn copy(range: *const ScanRange) -> Ask {
        assert!(!range.is_null(), "the range is NULL");
        // SAFETY: not null, and the caller says that it points to a range.
        let range = unsafe { *range };
        // SAFETY: the caller's promise for both borders.
        let (start, end) = unsafe { (range.start.copy(), range.end.copy()) };
        Ask::new(start, end, range.limit, range.reverse, range.keys_only)
    }
}

/// Copies of `count` keys.
///
/// # Safety
/// `keys` must point to so many, each of which [`Slice::copy`] may read.
pub(crate) unsafe fn copy_keys(keys: *const Slice, count: usize) -> Vec<Bytes> {
    // SAFETY: the caller's promise.
    let keys = unsafe { array(keys, count) };
    // SAFETY: the caller's promise for each.
    keys.iter().map(|key| unsafe { key.copy() }).collect()
}

/// Copies of `count` pairs.
///
/// # Safety
/// `pairs` must point to so many, of which [`Slice::copy`] may read key and value.
pub(crate) unsafe fn copy_pairs(pairs: *const Pair, count: usize) -> Vec<(Bytes, Bytes)> {
    // SAFETY: the caller's promise.
    let pairs = unsafe { array(pairs, count) };
    // SAFETY: the caller's promise for each.
    let copy = |pair: &Pair| unsafe { (pair.key.copy(), pair.value.copy()) };
    pairs.iter().map(copy).collect()
}

/// A copy of what `value` points to; none if it is NULL.
///
/// # Safety
/// `value` must be NULL or point to bytes that [`Slice::copy`] may read.
pub(crate) unsafe fn copy_optional(value: *const Slice) -> Option<Bytes> {
    // SAFETY: NULL or valid, says the caller.
    unsafe { value.as_ref().map(|value| value.copy()) }
}

/// A copy of a text; an empty one for NULL.
///
/// # Safety
/// `text` must be NULL or end with a zero byte.
pub(crate) unsafe fn copy_text(text: *const c_char) -> Result<String, Failure> {
    if text.is_null() {
        return Ok(String::new());
    }
    // SAFETY: not null, and the caller says that it ends with a zero byte.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_str().map(str::to_owned);
    text.map_err(|_| Failure::configuration("a text is not UTF-8".into()))
}

/// # Safety
/// `items` must point to `count` of them.
unsafe fn array<'a, T>(items: *const T, count: usize) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    assert!(!items.is_null(), "an array is NULL, but its length is {count}");
    // SAFETY: not null, and the caller says that so many are there.
    unsafe { std::slice::from_raw_parts(items, count) }
}
