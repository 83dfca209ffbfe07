//! CPU and heap profiles of the running process, one at a time and bounded in length.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::time::Duration;

use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Longest profile: a forgotten one must not slow the process for long.
const SECONDS_MAX: u64 = 60;
/// Samples a second: not a divisor of usual timer rates, so that periodic work is neither missed nor met each time.
const SAMPLE_HZ: i32 = 99;

/// What is drawn of a process that used no CPU time.
const IDLE_SVG: &[u8] = br#"<svg xmlns="http://www.w3.org/2000/svg" width="480" height="60"><text x="20" y="35">no CPU time was used while sampling</text></svg>"#;

/// Both kinds share it: each would disturb the other's picture.
static RUNNING: Semaphore = Semaphore::const_new(1);

#[derive(Deserialize)]
pub struct Length {
    #[serde(default = "Length::default_seconds")]
    seconds: u64,
}

impl Length {
    fn default_seconds() -> u64 {
        10
    }

    /// The span to profile and the right to do so, or the answer that refuses.
    fn admit(&self) -> Result<(Duration, SemaphorePermit<'static>), Response> {
        if !(1..=SECONDS_MAX).contains(&self.seconds) {
            let fault = format!("seconds = {}: wanted 1 to {SECONDS_MAX}\n", self.seconds);
            return Err((StatusCode::BAD_REQUEST, fault).into_response());
        }
        let permit = RUNNING
            .try_acquire()
            .map_err(|_| (StatusCode::TOO_MANY_REQUESTS, "another profile is running\n").into_response())?;
        Ok((Duration::from_secs(self.seconds), permit))
    }
}

/// `/debug/pprof/profile?seconds=N`: where CPU time goes, as a flamegraph in SVG.
pub async fn cpu(Query(length): Query<Length>) -> Response {
    let (span, _running) = match length.admit() {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let profiler = match pprof::ProfilerGuardBuilder::default().frequency(SAMPLE_HZ).build() {
        Ok(profiler) => profiler,
        Err(error) => return failed("start the profiler", error),
    };
    tokio::time::sleep(span).await;
    // Turning addresses into names reads the binary's debug information: too long for a network thread.
    let drawn = tokio::task::spawn_blocking(move || {
        let mut svg = Vec::new();
        let report = profiler.report().build()?;
        match report.data.is_empty() {
            true => svg.extend_from_slice(IDLE_SVG),
            false => report.flamegraph(&mut svg)?,
        }
        Ok::<_, pprof::Error>(svg)
    });
    match drawn.await {
        Ok(Ok(svg)) => ([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response(),
        Ok(Err(error)) => failed("draw the profile", error),
        Err(error) => failed("draw the profile", error),
    }
}

/// `/debug/pprof/heap?seconds=N`: memory taken during these seconds and still held, in jemalloc's form, for `jeprof`.
pub async fn heap(Query(length): Query<Length>) -> Response {
    let (span, _running) = match length.admit() {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let sampling = match Sampling::start() {
        Ok(sampling) => sampling,
        Err(error) => return failed("start heap sampling", error),
    };
    tokio::time::sleep(span).await;
    match tokio::task::spawn_blocking(move || sampling.dump()).await {
        Ok(Ok(dump)) => ([(header::CONTENT_TYPE, "application/octet-stream")], dump).into_response(),
        Ok(Err(error)) => failed("write the heap profile", error),
        Err(error) => failed("write the heap profile", error),
    }
}

fn failed(act: &str, error: impl std::error::Error) -> Response {
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("{act}: {}\n", base::log::chain(&error)),
    )
        .into_response()
}

/// Heap sampling while it lives; stops when dropped, also when the client goes away.
struct Sampling;

impl Sampling {
    fn start() -> io::Result<Sampling> {
        // Forget what an earlier profile saw, so that each tells its own seconds.
        mallctl_write(c"prof.reset", 19_usize)?;
        mallctl_write(c"prof.active", true)?;
        Ok(Sampling)
    }

    fn dump(self) -> io::Result<Vec<u8>> {
        // jemalloc writes to a path; a file in memory has one that nobody else can guess or link elsewhere.
        let file = rustix::fs::memfd_create(c"heap-profile", rustix::fs::MemfdFlags::CLOEXEC)?;
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        mallctl_write(c"prof.dump", path.as_ptr())?;
        let mut dump = Vec::new();
        std::fs::File::from(file).read_to_end(&mut dump)?;
        Ok(dump)
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        // Nobody is left to be told; a profile that stays on costs a little speed.
        let _ = mallctl_write(c"prof.active", false);
    }
}

/// Sets one of jemalloc's controls. `T` must be the type that jemalloc's manual gives for `name`.
#[allow(unsafe_code)]
fn mallctl_write<T>(name: &std::ffi::CStr, value: T) -> io::Result<()> {
    // SAFETY: the three callers above pass the documented types (`size_t`, `bool`, `const char *` that lives over the call);
    // the name ends with NUL.
    unsafe { tikv_jemalloc_ctl::raw::write(name.to_bytes_with_nul(), value) }
        .map_err(|error| io::Error::other(format!("{}: {error}", name.to_string_lossy())))
}
