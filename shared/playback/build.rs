//! Compiles the protobuf schema without `protoc`: protox parses it in Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "../../proto/playback.proto";
    println!("cargo:rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["../../proto"])?;
    // `EnvelopeHead` only counts its events, so it borrows them instead of copying.
    prost_build::Config::new().bytes([".playhead.v1.EnvelopeHead"]).compile_fds(descriptors)?;
    Ok(())
}
