//! Running the binary, and folders to run it in.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// What a run left behind.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        let code = output.status.code().expect("not killed");
        Self { code, out: text(output.stdout), err: text(output.stderr) }
    }

    /// Last line of standard output.
    pub(crate) fn last(&self) -> &str {
        self.out.lines().last().unwrap_or_default()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.last()).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chopmark"));
    command.env_remove("CHOPMARK_API_KEY");
    command
}

/// Runs `chopmark` with these arguments.
pub(crate) fn chopmark<A: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = A>) -> Ran {
    chopmark_in(Path::new("."), args)
}

/// As [`chopmark`], in a folder.
pub(crate) fn chopmark_in<A: AsRef<std::ffi::OsStr>>(folder: &Path, args: impl IntoIterator<Item = A>) -> Ran {
    Ran::of(binary().current_dir(folder).args(args).stdin(Stdio::null()).output().expect("chopmark runs"))
}

/// As [`chopmark`], with bytes on standard input.
pub(crate) fn chopmark_fed(input: &[u8], args: &[&str]) -> Ran {
    let mut command = binary();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("chopmark runs");
    child.stdin.take().expect("piped").write_all(input).expect("it reads");
    Ran::of(child.wait_with_output().expect("chopmark ends"))
}

/// An empty folder for one test.
pub(crate) fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chopmark-cli").join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("remove the folder of an earlier run");
    }
    fs::create_dir_all(&folder).expect("make a folder");
    folder
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}
