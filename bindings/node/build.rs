//! Lets the extension be loaded by Node.

fn main() {
    napi_build::setup();
}
