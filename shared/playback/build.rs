//! Compiles the protobuf schema without `protoc`: protox parses it in Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "../../proto/playback.proto";
    println!("cargo:rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["../../proto"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
