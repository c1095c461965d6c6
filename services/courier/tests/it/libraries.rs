//! The reference libraries of Standard Webhooks, of two languages, over messages that we signed.

use std::{
    env,
    path::PathBuf,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use chopmark_courier::sign::{Secret, signature};
use serde_json::{Value, json};

const FOLDER: &str = "CHOPMARK_WEBHOOK_VERIFIERS";

const PYTHON: &str = r"
import json, sys
from standardwebhooks.webhooks import Webhook
for case in json.load(sys.stdin):
    try:
        Webhook(case['secret']).verify(case['body'], case['headers'])
        print('accepted')
    except Exception:
        print('refused')
";

const NODE: &str = r"
const { Webhook } = require('standardwebhooks');
for (const one of JSON.parse(require('fs').readFileSync(0))) {
    try {
        new Webhook(one.secret).verify(one.body, one.headers);
        console.log('accepted');
    } catch {
        console.log('refused');
    }
}
";

#[test]
fn the_reference_libraries_accept_what_we_sign_and_nothing_else() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else {
        assert!(env::var_os("CI").is_none(), "{FOLDER} does not name the folder of the libraries");
        eprintln!("SKIPPED: no reference libraries: {FOLDER} is not set; scripts/test.sh sets it");
        return;
    };
    #[expect(clippy::disallowed_methods, reason = "the libraries look at the machine's clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (secret, other) = (Secret::from_bytes(&[7; 32]).unwrap(), Secret::from_bytes(&[8; 24]).unwrap());
    let body = r#"{"type":"evidence.committed","data":{"id":"evd_…"}}"#;
    let case = |holds: &Secret, id: &str, time: u64, signed: &str, body: &str| {
        let headers = json!({ "webhook-id": id, "webhook-timestamp": time.to_string(), "webhook-signature": signed });
        json!({ "secret": *holds.to_text(), "headers": headers, "body": body })
    };
    let signed = signature(&[&secret], "evt_a", now, body.as_bytes());
    let both = signature(&[&other, &secret], "evt_a", now, body.as_bytes());
    let old = signature(&[&secret], "evt_a", now - 3600, body.as_bytes());
    let cases = [
        (true, case(&secret, "evt_a", now, &signed, body)),
        (true, case(&secret, "evt_a", now, &both, body)),
        (true, case(&other, "evt_a", now, &both, body)),
        (false, case(&other, "evt_a", now, &signed, body)),
        (false, case(&secret, "evt_b", now, &signed, body)),
        (false, case(&secret, "evt_a", now + 1, &signed, body)),
        (false, case(&secret, "evt_a", now, &signed, &body.replace("evidence", "case"))),
        (false, case(&secret, "evt_a", now - 3600, &old, body)),
    ];
    let expected: String =
        cases.iter().map(|(accepted, _)| if *accepted { "accepted\n" } else { "refused\n" }).collect();
    let input = Value::from_iter(cases.map(|(_, case)| case)).to_string();
    let mut python = Command::new(folder.join("python/bin/python"));
    python.args(["-c", PYTHON]);
    let mut node = Command::new("node");
    node.args(["-e", NODE]).current_dir(folder.join("node"));
    for mut library in [python, node] {
        assert_eq!(run(&mut library, &input), expected, "{library:?}");
    }
}

fn run(command: &mut Command, input: &str) -> String {
    use std::{io::Write as _, process::Stdio};
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}
