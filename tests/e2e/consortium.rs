//! A network of four members: receipts of any of them hold for anybody who trusts all of them.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, path::Path, process::Command};

use chopmark_tests::{Dev, repository, sha256, verify, verify_sh, verify_v2};
use serde_json::Value;

async fn read(dev: &Dev, url: &str) -> Vec<u8> {
    let answer = dev.http.get(url).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200, "{url}");
    answer.bytes().await.unwrap().to_vec()
}

/// Waits until a member's own node serves `url`: it may be a block behind.
async fn served(dev: &Dev, url: &str) -> Vec<u8> {
    for _ in 0..200 {
        let answer = dev.http.get(url).send().await.unwrap();
        if answer.status().is_success() {
            return answer.bytes().await.unwrap().to_vec();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{url} is not served");
}

fn cosigners(line: &str) -> u32 {
    let (_, rest) = line.split_once("cosigners=").unwrap();
    let (count, rest) = rest.split_once('/').unwrap();
    assert!(rest.starts_with("4 "), "{line}");
    count.parse().unwrap()
}

fn three_verdicts(file: &Path, entry: &Path, receipt: &Path, policy: &Path) {
    let (line, code) = verify(file, entry, receipt, policy).unwrap();
    assert!(line.starts_with("VALID index=") && code == 0, "{line}");
    assert!(cosigners(&line) >= 3, "{line}");
    assert_eq!(verify_sh(file, entry, receipt, policy).unwrap(), (line.clone(), 0));
    assert_eq!(verify_v2(file, entry, receipt, policy).unwrap(), (line, 0));
}

fn check_certificate(block: &Path, members: &Path) -> (String, i32) {
    let script = repository().join("tests/certificate/check.py");
    let output = Command::new("python3").arg(script).arg(block).arg(members).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (said.trim().to_owned(), output.status.code().unwrap())
}

/// A stranger checks every decision with a hundred lines of Python, and one changed digit is noticed.
async fn certificates_hold(dev: &Dev, folder: &Path) {
    let (block, members) = (folder.join("block.json"), folder.join("members.json"));
    fs::write(&members, read(dev, &format!("{}/v1/entries/0/entry", dev.base)).await).unwrap();
    for (_, url) in &dev.nodes {
        for height in 1..=2 {
            let bytes = served(dev, &format!("{url}/v1/blocks/{height}")).await;
            fs::write(&block, &bytes).unwrap();
            let (said, code) = check_certificate(&block, &members);
            assert!(said.starts_with(&format!("VALID height={height} validators=")) && code == 0, "{said}");
            let sound: Value = serde_json::from_slice(&bytes).unwrap();
            for (pointer, verdict) in [
                ("/certificate/signatures/0/signature", "INVALID check=signature"),
                ("/header/root", "INVALID check=header"),
                ("/header/members", "INVALID check=members"),
            ] {
                let mut changed = sound.clone();
                let text = changed.pointer(pointer).unwrap().as_str().unwrap();
                let digit = if text.starts_with('0') { "1" } else { "0" };
                let text = format!("{digit}{}", &text[1..]);
                *changed.pointer_mut(pointer).unwrap() = text.into();
                fs::write(&block, changed.to_string()).unwrap();
                assert_eq!(check_certificate(&block, &members), (verdict.to_owned(), 1), "{pointer}");
            }
            let mut fewer = sound.clone();
            fewer["certificate"]["signatures"].as_array_mut().unwrap().truncate(2);
            fs::write(&block, fewer.to_string()).unwrap();
            assert_eq!(check_certificate(&block, &members), ("INCOMPLETE missing=quorum".to_owned(), 1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_members_receipt_holds_under_every_members_policy() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let dev = Dev::start_members(&data, 4).await.unwrap();
    assert_eq!(dev.nodes.len(), 4);
    let file = folder.path().join("contract.txt");
    fs::write(&file, "the contract").unwrap();
    let created = dev.notarize("order-1", b"the contract").await.unwrap();
    assert_eq!((created.status, created.body["state"].as_str()), (201, Some("committed")), "{}", created.body);
    let index = created.body["entry"]["index"].as_u64().unwrap();

    let mut policies = Vec::new();
    for (member, url) in &dev.nodes {
        let policy = folder.path().join(format!("{member}.policy"));
        fs::write(&policy, read(&dev, &format!("{url}/log/policy")).await).unwrap();
        policies.push(policy);
    }
    let texts: Vec<_> = policies.iter().map(|policy| fs::read(policy).unwrap()).collect();
    assert!(texts.windows(2).all(|pair| pair[0] == pair[1]));
    for (member, url) in &dev.nodes {
        let (entry, receipt) = (folder.path().join("entry.json"), folder.path().join("receipt.tlog-proof"));
        fs::write(&receipt, served(&dev, &format!("{url}/v1/entries/{index}/receipt")).await).unwrap();
        fs::write(&entry, served(&dev, &format!("{url}/v1/entries/{index}/entry")).await).unwrap();
        for policy in &policies {
            three_verdicts(&file, &entry, &receipt, policy);
        }
        // A court asks its own machine.
        let found = read(&dev, &format!("{url}/v1/verify/sha256/{}", sha256(b"the contract"))).await;
        let found: Value = serde_json::from_slice(&found).unwrap();
        assert_eq!(found["records"].as_array().unwrap().len(), 1, "{member}");
        let ready: Value = serde_json::from_slice(&read(&dev, &format!("{url}/health/ready")).await).unwrap();
        assert_eq!(ready["status"], "ok", "{member}");
        // Only the operator has tenants; the others say so.
        let private = dev.http.get(format!("{url}/v1/evidence")).send().await.unwrap();
        let expected = if *url == dev.base { 401 } else { 404 };
        assert_eq!(private.status().as_u16(), expected, "{member}");
    }

    certificates_hold(&dev, folder.path()).await;

    dev.kill();
    let dev = Dev::start_members(&data, 4).await.unwrap();
    let again = dev.notarize("order-1", b"the contract").await.unwrap();
    assert_eq!((again.status, &again.body["id"]), (201, &created.body["id"]));
    let next = dev.notarize("order-2", b"another").await.unwrap();
    assert_eq!(next.body["state"], "committed", "{}", next.body);
    dev.stop().unwrap();
    for (guard, node) in [("data.guard", "data"), ("data.guard.court.localhost", "data/members/court.localhost")] {
        let mut command = Command::new(chopmark_tests::binary());
        let guard = folder.path().join(guard);
        let (code, text) = chopmark_tests::fsck_by(&mut command, &folder.path().join(node), guard.as_os_str()).unwrap();
        assert_eq!(code, 0, "{text}");
    }
}
