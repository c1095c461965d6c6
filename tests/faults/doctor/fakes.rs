//! Servers that are not what they should be.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

/// Stands in URLs and files of the cases, and must stand in no report.
pub(crate) const PASSWORD: &str = "hunter2";

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port at which nobody listens.
pub(crate) fn closed() -> u16 {
    listener().1
}

/// Takes connections, as far as the system does, and says nothing for as long as it lives.
pub(crate) fn silent() -> (TcpListener, u16) {
    listener()
}

/// Serves each connection by `serve` until the test ends.
fn serve(serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + Clone + 'static) -> u16 {
    let (listener, port) = listener();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let serve = serve.clone();
            // Whoever is served may be gone at any moment.
            thread::spawn(move || serve(connection));
        }
    });
    port
}

/// An HTTP server that refuses everything: to any other client, gibberish.
pub(crate) fn junk() -> u16 {
    serve(|mut connection| {
        let mut request = [0; 4096];
        let _read = connection.read(&mut request)?;
        connection.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    })
}

/// A node's internal interface that says this of itself; its URL.
pub(crate) fn node(status: &Value) -> String {
    let body = status.to_string();
    let port = serve(move |mut connection| {
        let mut request = [0; 4096];
        let _read = connection.read(&mut request)?;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
        connection.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
    });
    format!("http://127.0.0.1:{port}")
}

/// What a Redis of the tests says.
#[derive(Clone, Copy)]
pub(crate) struct FakeRedis {
    pub(crate) version: &'static str,
    pub(crate) role: &'static str,
    /// Unix seconds; none: as ours.
    pub(crate) seconds: u64,
    pub(crate) shows_settings: bool,
}

impl FakeRedis {
    /// Serves; the URL.
    pub(crate) fn start(self) -> String {
        let port = serve(move |mut connection| {
            let (mut buffer, mut bytes) = (Vec::new(), [0; 4096]);
            loop {
                while let Some((command, rest)) = command(&buffer) {
                    buffer = rest;
                    connection.write_all(self.answer(&command).as_bytes())?;
                }
                match connection.read(&mut bytes)? {
                    0 => return Ok(()),
                    count => buffer.extend_from_slice(&bytes[..count]),
                }
            }
        });
        format!("redis://127.0.0.1:{port}")
    }

    fn answer(self, command: &[String]) -> String {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let word = |at: usize| command.get(at).map(|word| word.to_ascii_lowercase()).unwrap_or_default();
        match (word(0).as_str(), word(1).as_str()) {
            ("ping", _) => "+PONG\r\n".to_owned(),
            ("info", "server") => bulk(&format!("# Server\r\nredis_version:{}\r\n", self.version)),
            ("info", _) => bulk(&format!("# Replication\r\nrole:{}\r\n", self.role)),
            ("time", _) => format!("*2\r\n{}{}", bulk(&self.seconds.to_string()), bulk("0")),
            ("config", _) if !self.shows_settings => "-NOPERM this user has no permissions\r\n".to_owned(),
            ("config", _) => {
                let value = if word(2) == "maxmemory" { "0" } else { "noeviction" };
                format!("*2\r\n{}{}", bulk(&word(2)), bulk(value))
            }
            _ => "+OK\r\n".to_owned(),
        }
    }
}

/// The first command in the buffer (an array of bulk strings) and what comes after it, once it is whole.
fn command(buffer: &[u8]) -> Option<(Vec<String>, Vec<u8>)> {
    let mut rest = buffer;
    let count: usize = line(&mut rest)?.strip_prefix('*')?.parse().ok()?;
    let mut words = Vec::new();
    for _ in 0..count {
        let length: usize = line(&mut rest)?.strip_prefix('$')?.parse().ok()?;
        let word = rest.get(..length)?;
        words.push(String::from_utf8_lossy(word).into_owned());
        rest = rest.get(length + 2..)?;
    }
    Some((words, rest.to_vec()))
}

fn line(rest: &mut &[u8]) -> Option<String> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let text = String::from_utf8_lossy(&rest[..end]).into_owned();
    *rest = &rest[end + 2..];
    Some(text)
}

/// A real Redis with settings of a case's own. Killed when dropped.
pub(crate) struct Redis {
    child: Child,
    pub(crate) port: u16,
}

impl Redis {
    pub(crate) fn start(folder: &Path, options: &[&str]) -> Self {
        let port = closed();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"]);
        let redis = Self { child: command.arg(folder).args(options).stdout(Stdio::null()).spawn().unwrap(), port };
        for _ in 0..1000 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return redis;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("Redis does not start");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
