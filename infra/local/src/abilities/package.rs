//! A deployment package: a ZIP archive with one executable, not compressed. That is a few fixed
//! records, so it needs no library.

use flate2::Crc;

const NAME: &[u8] = b"bootstrap";
/// Version 2.0 of the format, made on Unix, so that the file's mode counts.
const MADE_BY: u16 = 0x0314;
const NEEDS: u16 = 20;
/// 1 January 1980, the first day that the format knows.
const DAY: u16 = 0x0021;
/// A regular file that all may read and run.
const MODE: u32 = 0o100_755 << 16;

/// The archive with `program` as `bootstrap`.
pub(super) fn package(program: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(program);
    let size = u32::try_from(program.len()).unwrap_or(u32::MAX);
    let name_length = u16::try_from(NAME.len()).unwrap_or(u16::MAX);
    // What the local and the central header have in common, from "version needed" to "extra length".
    let mut common = Vec::new();
    for field in [NEEDS, 0, 0, 0, DAY] {
        common.extend(field.to_le_bytes());
    }
    for field in [crc.sum(), size, size] {
        common.extend(field.to_le_bytes());
    }
    for field in [name_length, 0] {
        common.extend(field.to_le_bytes());
    }

    let mut archive = b"PK\x03\x04".to_vec();
    archive.extend(&common);
    archive.extend(NAME);
    archive.extend(program);
    let directory = u32::try_from(archive.len()).unwrap_or(u32::MAX);
    archive.extend(b"PK\x01\x02");
    archive.extend(MADE_BY.to_le_bytes());
    archive.extend(&common);
    archive.extend([0; 6]); // comment, disk, internal attributes
    archive.extend(MODE.to_le_bytes());
    archive.extend([0; 4]); // where the local header is
    archive.extend(NAME);
    let directory_size = u32::try_from(archive.len()).unwrap_or(u32::MAX) - directory;
    archive.extend(b"PK\x05\x06");
    archive.extend([0, 0, 0, 0, 1, 0, 1, 0]); // one disk, one file
    archive.extend(directory_size.to_le_bytes());
    archive.extend(directory.to_le_bytes());
    archive.extend([0; 2]); // comment
    archive
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn archive_holds_one_executable_that_others_can_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f.zip"), package(b"#!/bin/bash\n")).unwrap();
        let read = "import zipfile; z = zipfile.ZipFile('f.zip'); print(z.testzip(), \
                    [(i.filename, oct(i.external_attr >> 16), z.read(i)) for i in z.infolist()])";
        let output = Command::new("python3").args(["-c", read]).current_dir(&folder).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), r"None [('bootstrap', '0o100755', b'#!/bin/bash\n')]", "{output:?}");
    }
}
