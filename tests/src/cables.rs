//! Packets that are lost, for real: every member in a network namespace of its own, and the test in
//! the one that routes between them, where `nft` decides what becomes of each packet.
//!
//! A test runs itself once more, as the first process of new namespaces for network, mounts and
//! processes. So nothing changes for the host, and nothing is left over: when that process ends, in
//! whatever way, the kernel kills what it started and takes the namespaces away.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::{binary, long, tally};

/// Members that a world has room for.
pub const MEMBERS: usize = 4;
/// Set in the process that runs inside.
const INSIDE: &str = "CHOPMARK_TESTS_INSIDE";
/// A cable to each member, which is at its other end. The segments that the kernel would pass on in
/// one piece between namespaces are parted: a rule is to meet packets as a wire carries them.
const LAY: &str = "
mount -t tmpfs none /run
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link set lo up
for member in 0 1 2 3; do
    ip netns add member$member
    ip link add cable$member gso_max_segs 1 type veth peer name eth0 gso_max_segs 1 netns member$member
    ip address add 10.77.$member.1/24 dev cable$member
    ip link set cable$member up
    ip -n member$member address add 10.77.$member.2/24 dev eth0
    ip -n member$member link set lo up
    ip -n member$member link set eth0 up
    ip -n member$member route add default via 10.77.$member.1
done
";
/// One rule of every sort that the tests need.
const TRY: &str = "
nft 'add table inet faults; add counter inet faults met; \
     add chain inet faults forward { type filter hook forward priority 0; }; \
     add rule inet faults forward numgen random mod 100 < 1 counter name met drop; \
     add rule inet faults forward ip length > 999 tcp flags & (syn|ack) == syn counter name met reject with tcp reset'
";

/// A command in namespaces of its own, with the cables laid; `then` is what the shell does next.
fn apart(then: &str) -> Command {
    // It dies with the thread that starts it; without that, an interrupted test would go on.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount-proc", "sh", "-euc", &format!("{LAY}{then}"), "sh"]).stdin(Stdio::null());
    command
}

/// Whether this process is the one inside, where `test` is to do its work. Outside, the test is run
/// inside once more and has to pass there; it is skipped, and says why, where it was not asked for or
/// where this machine does not let it.
pub fn inside(test: &str) -> anyhow::Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    if !long() {
        tally(test, "SKIPPED: packets are lost with LONG=1 only");
        return Ok(false);
    }
    let tried = apart(TRY).output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        let said = tried.map_or_else(|error| error.to_string(), |tried| String::from_utf8_lossy(&tried.stderr).into());
        tally(test, &format!("SKIPPED: no namespaces or no nft here: {}", said.trim()));
        return Ok(false);
    }
    let mut again = apart("exec \"$@\"");
    again.arg(std::env::current_exe()?).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let ran = again.output()?;
    let said = [ran.stdout, ran.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    tally(test, &format!("inside:\n{said}"));
    ensure!(ran.status.success() && said.contains("1 passed"), "{test}: {}", ran.status);
    Ok(false)
}

/// Where each member listens.
pub fn addresses() -> [IpAddr; MEMBERS] {
    [0, 1, 2, 3].map(|member| IpAddr::V4(Ipv4Addr::new(10, 77, member, 2)))
}

/// A command at a member's end, which ends in the path of the binary under test.
pub fn at(member: usize) -> Command {
    let mut command = end_of(member);
    command.arg(binary());
    command
}

fn end_of(member: usize) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/member{member}"));
    command
}

/// The connections at a member's end, as `ss` shows them.
pub fn connections(member: usize) -> anyhow::Result<String> {
    let shown = end_of(member).args(["ss", "--tcp", "--numeric", "--options"]).output()?;
    Ok(String::from_utf8_lossy(&shown.stdout).into_owned())
}

/// What packets from some members to some others have in common, as `nft` writes it.
pub fn between(from: &[usize], to: &[usize]) -> String {
    let list = |members: &[usize]| {
        let addresses: Vec<String> = members.iter().map(|member| format!("10.77.{member}.2")).collect();
        addresses.join(", ")
    };
    format!("ip saddr {{ {} }} ip daddr {{ {} }}", list(from), list(to))
}

/// Gives the packets that match one of these this end (`drop`, `reject with tcp reset`), in the place
/// of whatever was in force: at one moment for all of them. The packets that the rules before have met.
pub fn rule(matching: &[String], end: &str) -> anyhow::Result<u64> {
    let met = Command::new("nft").args(["list", "counter", "inet", "faults", "met"]).output()?;
    let met = String::from_utf8_lossy(&met.stdout).into_owned();
    // Without a table there were no rules.
    let met = met.split_once("packets ").and_then(|(_, met)| met.split(' ').next()?.parse().ok());
    let mut rules = "table inet faults {}\ndelete table inet faults\ntable inet faults {\ncounter met {}\n".to_owned();
    rules.push_str("chain forward {\ntype filter hook forward priority 0;\n");
    for matching in matching {
        writeln!(rules, "{matching} counter name met {end}")?;
    }
    rules.push_str("}\n}\n");
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    nft.stdin.take().context("its input")?.write_all(rules.as_bytes())?;
    let said = nft.wait_with_output()?;
    ensure!(said.status.success(), "{rules}: {}", String::from_utf8_lossy(&said.stderr));
    Ok(met.unwrap_or_default())
}
