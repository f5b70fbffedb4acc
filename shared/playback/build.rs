//! Compiles the protobuf schema without `protoc`: protox parses it in Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "../../proto/playback.proto";
    println!("cargo:rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["../../proto"])?;
    // Events that are only counted are not copied either.
    prost_build::Config::new().bytes([".playhead.v1.EnvelopeHead"]).compile_fds(descriptors)?;
    Ok(())
}
