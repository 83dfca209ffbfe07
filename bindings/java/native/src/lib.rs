//! The native part of the package `io.ferrite.client`: a handful of functions that carry calls and their ends as bytes (`binding::packed`).
//!
//! Arguments come in direct buffers, without a copy on Java's heap. A thread of Java waits for ends and fetches all that have come at once, so no thread
//! of the library enters Java, and no reference to a Java object outlives the function that got it.

// A foreign interface is pointers; each block says whose promise it rests on.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use binding::packed::Hub;
use jni::errors::ThrowRuntimeExAndDefault;
use jni::objects::{JByteArray, JByteBuffer, JClass};
use jni::sys::{jboolean, jbyte, jint, jlong};
use jni::{Env, EnvUnowned};

/// One for all class loaders of the process.
fn hub() -> &'static Hub {
    static HUB: OnceLock<Hub> = OnceLock::new();
    HUB.get_or_init(|| Hub::new(|| {}))
}

/// Lets `work` see the first `length` bytes of a direct buffer.
fn with_bytes<T>(env: &Env<'_>, buffer: &JByteBuffer<'_>, length: jint, work: impl FnOnce(&[u8]) -> T) -> jni::errors::Result<T> {
    let length = usize::try_from(length).unwrap_or(0);
    let capacity = env.get_direct_buffer_capacity(buffer)?;
    let address = env.get_direct_buffer_address(buffer)?;
    // SAFETY: the buffer is direct and held by the caller's frame; nobody writes to it before the function returns, as the Java part takes it
    // from its own thread's.
    let bytes = unsafe { std::slice::from_raw_parts(address, length.min(capacity)) };
    Ok(work(bytes))
}

/// Gives the frame of what ends at once, else null. `static native byte[] submit(long handle, byte operation, long id, ByteBuffer arguments, int length, boolean cancellable)`
#[unsafe(no_mangle)]
pub extern "system" fn Java_io_ferrite_client_Native_submit<'a>(
    mut env: EnvUnowned<'a>,
    _class: JClass<'a>,
    handle: jlong,
    operation: jbyte,
    id: jlong,
    arguments: JByteBuffer<'a>,
    length: jint,
    cancellable: jboolean,
) -> JByteArray<'a> {
    env.with_env(|env| {
        let ended = with_bytes(env, &arguments, length, |bytes| {
            hub().submit(handle as u64, operation as u8, id as u64, bytes, cancellable)
        })?;
        match ended {
            Some(frame) => env.byte_array_from_slice(&frame),
            None => Ok(JByteArray::default()),
        }
    })
    .resolve::<ThrowRuntimeExAndDefault>()
}

/// `static native void submitAll(ByteBuffer operations, int length)`: many together, in the form of [`Hub::submit_all`].
#[unsafe(no_mangle)]
pub extern "system" fn Java_io_ferrite_client_Native_submitAll<'a>(
    mut env: EnvUnowned<'a>,
    _class: JClass<'a>,
    operations: JByteBuffer<'a>,
    length: jint,
) {
    env.with_env(|env| with_bytes(env, &operations, length, |bytes| hub().submit_all(bytes)))
        .resolve::<ThrowRuntimeExAndDefault>()
}

/// `static native byte[] call(long handle, byte operation, ByteBuffer arguments, int length)`: runs it on the caller's thread.
#[unsafe(no_mangle)]
pub extern "system" fn Java_io_ferrite_client_Native_call<'a>(
    mut env: EnvUnowned<'a>,
    _class: JClass<'a>,
    handle: jlong,
    operation: jbyte,
    arguments: JByteBuffer<'a>,
    length: jint,
) -> JByteArray<'a> {
    env.with_env(|env| {
        let frame = with_bytes(env, &arguments, length, |bytes| {
            hub().call(handle as u64, operation as u8, bytes)
        })?;
        env.byte_array_from_slice(&frame)
    })
    .resolve::<ThrowRuntimeExAndDefault>()
}

/// `static native byte[] poll()`: waits for ends.
#[unsafe(no_mangle)]
pub extern "system" fn Java_io_ferrite_client_Native_poll<'a>(mut env: EnvUnowned<'a>, _class: JClass<'a>) -> JByteArray<'a> {
    env.with_env(|env| env.byte_array_from_slice(&hub().wait()))
        .resolve::<ThrowRuntimeExAndDefault>()
}

/// `static native void cancel(long id)`
#[unsafe(no_mangle)]
pub extern "system" fn Java_io_ferrite_client_Native_cancel<'a>(mut env: EnvUnowned<'a>, _class: JClass<'a>, id: jlong) {
    env.with_env(|_| -> jni::errors::Result<()> {
        hub().cancel(id as u64);
        Ok(())
    })
    .resolve::<ThrowRuntimeExAndDefault>()
}

/// `static native void free(long handle)`
#[unsafe(no_mangle)]
pub extern "system" fn Java_io_ferrite_client_Native_free<'a>(mut env: EnvUnowned<'a>, _class: JClass<'a>, handle: jlong) {
    env.with_env(|_| -> jni::errors::Result<()> {
        hub().free(handle as u64);
        Ok(())
    })
    .resolve::<ThrowRuntimeExAndDefault>()
}

/// `static native long handles()`: those that are not freed.
#[unsafe(no_mangle)]
pub extern "system" fn Java_io_ferrite_client_Native_handles<'a>(mut env: EnvUnowned<'a>, _class: JClass<'a>) -> jlong {
    env.with_env(|_| -> jni::errors::Result<jlong> { Ok(hub().handles() as jlong) })
        .resolve::<ThrowRuntimeExAndDefault>()
}
