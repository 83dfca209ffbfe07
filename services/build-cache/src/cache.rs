//! Between the protocols and the store: what may block goes to the blocking pool, what is quick stays where it is; what is not here is
//! looked for in the tiers.

use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, Span};
use blob_store::{Blob, Content, FRAME, Key, Presence, SpaceId, Store, Upload};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zstd::stream::raw::{DParameter, Decoder, Operation};

use crate::config::Config;
use crate::error::Error;
use crate::metrics;
use crate::tier::{Id, OwnedId, Tiers};

/// Bytes gathered before a blocking thread hashes and compresses them: a frame, so that few hops between threads are needed.
const BATCH: usize = FRAME;
/// With more uploads than this, each gathers less, and holds nothing between two batches: what is no whole frame yet waits on disk. That
/// costs a few percent, and a thousand uploads then hold what two hundred would.
const CROWD: i64 = 128;
const BATCH_IN_CROWD: usize = 32 << 10;
/// A client that sends nothing for this long has the memory of its upload taken until it does.
const PAUSE: Duration = Duration::from_millis(50);
/// Whole uploads up to this are handled on the spot: about 50 µs, less than a thread's hop and wake-up are worth.
const QUICK: usize = 16 << 10;
/// Blobs looked up on the spot; more go to a blocking thread.
const LOOKUPS_QUICK: usize = 64;
/// Compressed uploads that are decoded at once: each holds a window of up to 8 MiB. More wait.
const DECODERS: usize = 64;
/// Largest window of a compressed upload, as a power of two; what zstd's levels up to 19 use.
const WINDOW_LOG: u32 = 23;

/// The SHA-256 of nothing: clients take it for granted.
pub const EMPTY_SHA256: Key = Key([
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64,
    0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
]);

/// How a body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Zstd,
}

/// The store and what bounds its use.
#[derive(Clone)]
pub struct Cache {
    pub store: Store,
    uploads: Arc<Semaphore>,
    decoders: Arc<Semaphore>,
    pub tiers: Arc<Tiers>,
    blob_max: u64,
    /// Waiting for the disk on the spot would hold a worker.
    is_synced: bool,
    pub pace: Pace,
}

/// How slow a client may be.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub idle: Span,
    rate_min: u64,
}

impl Pace {
    /// Waits for the next part of a body that began at `start` and brought `got` bytes so far.
    pub async fn next<T>(&self, start: MonoTime, got: u64, part: impl Future<Output = T>) -> Result<T, Error> {
        self.check(start, got)?;
        self.wait(part).await
    }

    fn check(&self, start: MonoTime, got: u64) -> Result<(), Error> {
        let lasted = MonoTime::now().since(start);
        match lasted > self.idle.0 && got < lasted.as_secs() * self.rate_min {
            true => Err(Error::Slow),
            false => Ok(()),
        }
    }

    async fn wait<T>(&self, part: impl Future<Output = T>) -> Result<T, Error> {
        tokio::time::timeout(self.idle.0, part).await.map_err(|_| Error::Slow)
    }
}

impl Cache {
    pub fn new(store: Store, tiers: Arc<Tiers>, config: &Config) -> Cache {
        Cache {
            store,
            tiers,
            uploads: Arc::new(Semaphore::new(config.server.uploads_max)),
            decoders: Arc::new(Semaphore::new(DECODERS)),
            blob_max: config.store.blob_max.0,
            is_synced: config.store.sync == crate::config::Sync::Always,
            pace: Pace {
                idle: config.server.idle,
                rate_min: config.server.upload_rate_min.0,
            },
        }
    }

    /// Largest blob.
    pub fn blob_max(&self) -> u64 {
        self.blob_max
    }

    /// The blob for reading, and notes the use. From a tier, if it is not here.
    pub async fn open(&self, id: Id<'_>) -> Result<Option<Arc<Blob>>, Error> {
        match self.open_here(&id.key).await? {
            None if self.tiers.fetch(self, id).await => self.open_here(&id.key).await,
            found => Ok(found),
        }
    }

    async fn open_here(&self, key: &Key) -> Result<Option<Arc<Blob>>, Error> {
        let blob = match self.store.peek(key) {
            Presence::Absent if *key == EMPTY_SHA256 => {
                self.put_empty()?;
                self.store.get(key)?
            }
            Presence::Absent => None,
            Presence::Present(_) => self.store.get(key)?,
            Presence::Suspect => {
                let (store, key) = (self.store.clone(), *key);
                blocking(move || store.get(&key)).await?
            }
        };
        Ok(blob.map(Arc::new))
    }

    fn put_empty(&self) -> Result<(), Error> {
        let mut upload = self.store.upload(EMPTY_SHA256, Content::Sha256, SpaceId(0), Some(0), 0);
        upload.set_impatient(true);
        Ok(upload.commit().map(drop)?)
    }

    /// Length of each blob, `None` where neither this server nor a tier has it; all that are here are renewed.
    pub async fn renew(&self, ids: &[Id<'_>]) -> Result<Vec<Option<u64>>, Error> {
        let mut found = self.renew_here(ids.iter().map(|id| id.key).collect()).await?;
        if self.tiers.is_empty() || found.iter().all(Option::is_some) {
            return Ok(found);
        }
        let open: Vec<usize> = (0..ids.len()).filter(|at| found[*at].is_none()).collect();
        let asked: Vec<Id<'_>> = open.iter().map(|at| ids[*at]).collect();
        for (at, len) in open.into_iter().zip(self.tiers.has(&asked).await) {
            found[at] = len;
        }
        Ok(found)
    }

    /// As [`Cache::renew`], of this server alone.
    pub async fn renew_here(&self, keys: Vec<Key>) -> Result<Vec<Option<u64>>, Error> {
        let is_quick = keys.len() <= LOOKUPS_QUICK && keys.iter().all(|key| self.store.peek(key) != Presence::Suspect);
        let store = self.store.clone();
        let renew = move || -> Result<_, blob_store::Error> {
            let one = |key: &Key| match store.renew(key) {
                Ok(None) if *key == EMPTY_SHA256 => Ok(Some(0)),
                other => other,
            };
            keys.iter().map(one).collect()
        };
        Ok(if is_quick { renew()? } else { blocking(renew).await? })
    }

    /// Removes a blob, here and from the tiers; whether it was here.
    pub async fn remove(&self, id: Id<'_>) -> Result<bool, Error> {
        let was_here = self.store.remove(&id.key)?;
        self.tiers.remove(id).await;
        Ok(was_here)
    }

    /// Begins an upload, or refuses when too many run. `len`: of the content, not of the body, where known.
    pub async fn upload(&self, id: Id<'_>, len: Option<u64>, coding: Coding) -> Result<Incoming, Error> {
        if len.is_some_and(|len| len > self.blob_max) {
            return Err(blob_store::Error::TooLarge { max: self.blob_max }.into());
        }
        let space = self.store.space(id.instance)?;
        let permit = self.uploads.clone().try_acquire_owned().map_err(|_| Error::Busy)?;
        let decoder = match coding {
            Coding::Identity => None,
            Coding::Zstd => {
                let permit = self.decoders.clone().acquire_owned();
                let permit = permit.await.expect("the semaphore is never closed");
                Some(Zstd::new(permit)?)
            }
        };
        metrics::UPLOADS.inc();
        let begin = Begin {
            id: id.to_owned(),
            space,
            len,
            len_max: self.blob_max,
            copy_check: None,
        };
        Ok(Incoming {
            cache: self.clone(),
            begin,
            upload: None,
            decoder,
            pending: Vec::new(),
            pending_bytes: 0,
            received: 0,
            is_torn: false,
            _permit: permit,
        })
    }

    /// Begins to take a copy that a tier has, of content with this length and checksum. What is here by the end of it stays.
    pub async fn copy(&self, id: Id<'_>, len: u64, check: u64, coding: Coding) -> Result<Incoming, Error> {
        let mut incoming = self.upload(id, Some(len), coding).await?;
        incoming.begin.copy_check = Some(check);
        Ok(incoming)
    }

    /// Stores bytes that are in memory already.
    pub async fn put(&self, id: Id<'_>, bytes: Bytes, coding: Coding) -> Result<u64, Error> {
        let len = (coding == Coding::Identity).then_some(bytes.len() as u64);
        let mut incoming = self.upload(id, len, coding).await?;
        incoming.write(bytes).await?;
        incoming.finish().await
    }

    /// All content of a blob of at most `max` bytes; `None` if it is absent or larger.
    pub async fn read(&self, id: Id<'_>, max: u64) -> Result<Option<Bytes>, Error> {
        let Some(blob) = self.open(id).await?.filter(|blob| blob.len() <= max) else {
            return Ok(None);
        };
        Ok(Some(read_whole(blob).await?))
    }
}

/// All content of a blob that is known to be small.
pub async fn read_whole(blob: Arc<Blob>) -> Result<Bytes, Error> {
    let mut cursor = blob.range(0, u64::MAX);
    match cursor.next(false)? {
        blob_store::Step::Data(piece) if piece.len() as u64 == blob.len() => Ok(piece),
        blob_store::Step::End => Ok(Bytes::new()),
        _ => {
            drop(cursor);
            let read = move || {
                let mut cursor = blob.range(0, u64::MAX);
                let mut all = Vec::with_capacity(blob.len() as usize);
                while let blob_store::Step::Data(piece) = cursor.next(true)? {
                    all.extend_from_slice(&piece);
                }
                Ok::<_, blob_store::Error>(Bytes::from(all))
            };
            blocking(read).await
        }
    }
}

/// Runs `work` on a blocking thread. At most one per request is under way, so connections and streams bound how many wait.
pub async fn blocking<T: Send + 'static, E: Into<Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Error> {
    metrics::BLOCKING.inc();
    let done = tokio::task::spawn_blocking(work).await;
    metrics::BLOCKING.dec();
    done.expect("a panic ends the process").map_err(Into::into)
}

struct Begin {
    id: OwnedId,
    space: SpaceId,
    len: Option<u64>,
    len_max: u64,
    /// Checksum of a copy from a tier.
    copy_check: Option<u64>,
}

impl Begin {
    fn upload(&self, store: &Store) -> Upload {
        let mut upload = store.upload(self.id.key, self.id.content, self.space, self.len, self.len_max);
        if let Some(check) = self.copy_check {
            upload.set_check(check);
            upload.set_keeps_existing(true);
        }
        upload
    }
}

/// A blob that comes in. Holds at most one batch; dropped, it leaves nothing.
pub struct Incoming {
    cache: Cache,
    begin: Begin,
    upload: Option<Box<Upload>>,
    decoder: Option<Zstd>,
    pending: Vec<Bytes>,
    pending_bytes: usize,
    received: u64,
    /// A batch is with a blocking thread, or failed there: nothing can follow.
    is_torn: bool,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        metrics::UPLOADS.dec();
    }
}

impl Incoming {
    /// Bytes of the body so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether more bytes may follow.
    pub fn can_go_on(&self) -> bool {
        !self.is_torn
    }

    /// Waits for the next part of the body, as [`Pace::next`]; holds little while the client pauses.
    pub async fn next<T>(&mut self, start: MonoTime, got: u64, part: impl Future<Output = T>) -> Result<T, Error> {
        let pace = self.cache.pace;
        pace.check(start, got)?;
        let mut part = std::pin::pin!(part);
        if let Ok(part) = tokio::time::timeout(PAUSE, part.as_mut()).await {
            return Ok(part);
        }
        self.park().await?;
        pace.wait(part).await
    }

    /// Puts what is held in memory to disk, for a blob that will be a file.
    async fn park(&mut self) -> Result<(), Error> {
        let is_large = self.upload.is_some() || self.pending_bytes > QUICK;
        // What is decoded has a bound of its own.
        if self.decoder.is_some() || !is_large {
            return Ok(());
        }
        self.is_torn = true;
        let taken = self.take();
        self.upload = Some(blocking(move || taken.write_and_park()).await?);
        self.is_torn = false;
        Ok(())
    }

    /// Takes the next bytes of the body.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.received += bytes.len() as u64;
        let max = self.begin.len.unwrap_or(self.begin.len_max);
        if self.decoder.is_none() && self.received > max {
            self.is_torn = true;
            return Err(blob_store::Error::TooLarge { max }.into());
        }
        self.pending_bytes += bytes.len();
        self.pending.push(bytes);
        let is_crowded = metrics::UPLOADS.get() > CROWD;
        let batch = if is_crowded { BATCH_IN_CROWD } else { BATCH };
        match self.pending_bytes >= batch {
            true => self.write_batch(is_crowded).await,
            false => Ok(()),
        }
    }

    async fn write_batch(&mut self, parks: bool) -> Result<(), Error> {
        self.is_torn = true;
        let taken = self.take();
        let parks = parks && taken.decoder.is_none();
        let write = move || match parks {
            true => taken.write_and_park().map(|upload| (upload, None)),
            false => taken.write(),
        };
        let (upload, decoder) = blocking(write).await?;
        (self.upload, self.decoder) = (Some(upload), decoder);
        self.is_torn = false;
        Ok(())
    }

    fn take(&mut self) -> Batch {
        self.pending_bytes = 0;
        Batch {
            upload: self
                .upload
                .take()
                .unwrap_or_else(|| Box::new(self.begin.upload(&self.cache.store))),
            decoder: self.decoder.take(),
            pieces: std::mem::take(&mut self.pending),
        }
    }

    /// Publishes the blob, here and in the tiers. Its length.
    pub async fn finish(mut self) -> Result<u64, Error> {
        let len = self.publish().await?;
        self.cache.tiers.stored(self.begin.id.as_id()).await;
        Ok(len)
    }

    /// Publishes a copy, here alone.
    pub async fn keep(mut self) -> Result<u64, Error> {
        self.publish().await
    }

    async fn publish(&mut self) -> Result<u64, Error> {
        let is_quick = self.upload.is_none() && self.decoder.is_none() && self.pending_bytes <= QUICK && !self.cache.is_synced;
        if is_quick {
            match self.publish_at_once() {
                Err(blob_store::Error::Full) => {} // wait for room where waiting is allowed
                other => return Ok(other?),
            }
        }
        let taken = self.take();
        blocking(move || {
            let (upload, decoder) = taken.write()?;
            match decoder {
                // A body that breaks off within a frame, or is none at all.
                Some(decoder) if !decoder.is_whole || !decoder.has_begun => Err(Error::Compression),
                _ => Ok(upload.commit()?),
            }
        })
        .await
    }

    fn publish_at_once(&self) -> Result<u64, blob_store::Error> {
        let mut upload = self.begin.upload(&self.cache.store);
        upload.set_impatient(true);
        self.pending.iter().try_for_each(|piece| upload.write(piece))?;
        upload.commit()
    }
}

/// What goes to a blocking thread.
struct Batch {
    upload: Box<Upload>,
    decoder: Option<Zstd>,
    pieces: Vec<Bytes>,
}

impl Batch {
    fn write_and_park(self) -> Result<Box<Upload>, Error> {
        let (mut upload, _no_decoder) = self.write()?;
        upload.park()?;
        Ok(upload)
    }

    fn write(mut self) -> Result<(Box<Upload>, Option<Zstd>), Error> {
        for piece in &self.pieces {
            match &mut self.decoder {
                Some(decoder) => decoder.write(piece, &mut self.upload)?,
                None => self.upload.write(piece)?,
            }
        }
        Ok((self.upload, self.decoder))
    }
}

/// Decodes a body. What comes out is bounded by the upload's declared length, step by step: a bomb is refused when it passes it.
///
/// Frames that hold what a frame at rest does ([`Upload::write_frame`]) are kept as they came, which spares compressing again; others
/// are decoded and compressed anew, since a range of a blob can only be read where frames are small.
struct Zstd {
    decoder: Decoder<'static>,
    /// Every frame that began has ended.
    is_whole: bool,
    has_begun: bool,
    out: Vec<u8>,
    /// The frame under way and what it held so far, while it may be kept.
    frame: Vec<u8>,
    content: Vec<u8>,
    /// The frame under way is too large to be kept, or does not start where one at rest does.
    is_plain: bool,
    _permit: OwnedSemaphorePermit,
}

impl Zstd {
    fn new(permit: OwnedSemaphorePermit) -> Result<Zstd, Error> {
        let mut decoder = Decoder::new().map_err(|_| Error::Compression)?;
        let window = DParameter::WindowLogMax(WINDOW_LOG);
        decoder.set_parameter(window).map_err(|_| Error::Compression)?;
        Ok(Zstd {
            decoder,
            is_whole: true,
            has_begun: false,
            out: vec![0; 64 << 10],
            frame: Vec::new(),
            content: Vec::new(),
            is_plain: false,
            _permit: permit,
        })
    }

    fn write(&mut self, mut bytes: &[u8], upload: &mut Upload) -> Result<(), Error> {
        loop {
            if self.is_whole {
                self.is_plain = !upload.is_aligned();
            }
            let step = self.decoder.run_on_buffers(bytes, &mut self.out);
            let step = step.map_err(|_| Error::Compression)?;
            let (read, rest) = bytes.split_at(step.bytes_read);
            let written = step.bytes_written;
            self.is_whole = step.remaining == 0;
            self.has_begun |= !read.is_empty();
            self.take(read, written, upload)?;
            bytes = rest;
            // A full buffer may have more behind it.
            if bytes.is_empty() && written < self.out.len() {
                return Ok(());
            }
        }
    }

    /// Passes on what came out of `read`: `written` bytes of `out`.
    fn take(&mut self, read: &[u8], written: usize, upload: &mut Upload) -> Result<(), Error> {
        if self.is_plain {
            return Ok(upload.write(&self.out[..written])?);
        }
        self.frame.extend_from_slice(read);
        self.content.extend_from_slice(&self.out[..written]);
        let is_small = self.content.len() <= FRAME && self.frame.len() <= FRAME + 64;
        match (is_small, self.is_whole) {
            (true, false) => Ok(()),
            (true, true) => {
                upload.write_frame(&self.content, &self.frame)?;
                self.forget();
                Ok(())
            }
            (false, _) => {
                self.is_plain = true;
                self.flush(upload)
            }
        }
    }

    fn flush(&mut self, upload: &mut Upload) -> Result<(), Error> {
        let content = std::mem::take(&mut self.content);
        self.forget();
        Ok(upload.write(&content)?)
    }

    fn forget(&mut self) {
        self.content.clear();
        self.frame.clear();
    }
}
