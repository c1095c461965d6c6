//! The bundle: one zip with all that an offline verifier needs, byte-identical for the same
//! entry, receipt and policy: sorted names, fixed times, nothing compressed.

use std::io::{Cursor, Write as _};

use chopmark_api::Problem;
use zip::{CompressionMethod, DateTime, ZipWriter, result::ZipError, write::SimpleFileOptions};

use crate::failure;

/// The shell verifier that travels with every bundle.
const VERIFIER: &str = include_str!("../../../schemas/verifier/verify.sh");
const README: &str = include_str!("bundle-readme.txt");

/// Builds the bundle.
pub(crate) fn bundle(entry: &[u8], receipt: &str, policy: &str) -> Result<Vec<u8>, Problem> {
    let files: [(&str, u32, &[u8]); 5] = [
        ("README.txt", 0o644, README.as_bytes()),
        ("entry.json", 0o644, entry),
        ("policy.txt", 0o644, policy.as_bytes()),
        ("receipt.tlog-proof", 0o644, receipt.as_bytes()),
        ("verify.sh", 0o755, VERIFIER.as_bytes()),
    ];
    write(&files).map_err(|_| failure::broken("a bundle that cannot be written"))
}

fn write(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>, ZipError> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode, bytes) in files {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .unix_permissions(*mode);
        zip.start_file(*name, options)?;
        zip.write_all(bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn bundles_are_sorted_and_the_same_every_time() {
        let bundle = || super::bundle(b"{}", "receipt", "policy").unwrap();
        assert_eq!(bundle(), bundle());
        let mut zip = zip::ZipArchive::new(Cursor::new(bundle())).unwrap();
        let names: Vec<String> = zip.file_names().map(|name| name.unwrap().into_owned()).collect();
        assert!(names.is_sorted());
        assert_eq!(names.len(), 5);
        let mut policy = String::new();
        zip.by_name("policy.txt").unwrap().read_to_string(&mut policy).unwrap();
        assert_eq!(policy, "policy");
        assert_eq!(zip.by_name("verify.sh").unwrap().unix_mode().unwrap() & 0o777, 0o755);
    }
}
