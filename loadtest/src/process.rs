//! CPU time and memory of the processes under load, by role, from `/proc`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// Clock ticks a second in `/proc/PID/stat`: 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The processes of a deployment: role and process id.
#[derive(Debug, Clone)]
pub(crate) struct Processes(Vec<(String, u32)>);

/// CPU seconds used, and memory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_mib: f64,
    /// Sum of what each process had at most, not all at one time.
    pub(crate) rss_peak_mib: f64,
}

/// By role.
pub(crate) type Usages = BTreeMap<String, Usage>;

impl Processes {
    /// Everything in one process.
    pub(crate) fn one(pid: u32) -> Self {
        Self(vec![("all roles".to_owned(), pid)])
    }

    /// Those of `deploy/native/stack.sh`, by their `.pid` files.
    pub(crate) fn of_stack(folder: &Path) -> anyhow::Result<Self> {
        let mut found = Vec::new();
        for folder in [folder.to_owned(), folder.join("servers")] {
            for file in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
                let path: PathBuf = file?.path();
                if path.extension().is_some_and(|extension| extension == "pid") {
                    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
                    // It watches the deployment and is no part of it.
                    if name == "prometheus" {
                        continue;
                    }
                    let text = fs::read_to_string(&path)?;
                    let pid = text.trim().parse().with_context(|| format!("{}: a process id", path.display()))?;
                    found.push((role(name).to_owned(), pid));
                }
            }
        }
        Ok(Self(found))
    }

    /// What all of them have used so far.
    pub(crate) fn usage(&self) -> anyhow::Result<Usages> {
        let children = children()?;
        let mut usages = Usages::new();
        for (role, pid) in &self.0 {
            let whole = usages.entry(role.clone()).or_default();
            whole.add(&Usage::of(*pid).with_context(|| format!("{role}, a process under load, has ended"))?);
            // PostgreSQL has a process for each connection.
            for child in children.get(pid).into_iter().flatten() {
                if let Ok(usage) = Usage::of(*child) {
                    whole.add(&usage);
                }
            }
        }
        Ok(usages)
    }
}

/// `node-court` and `committer-1` are a node and a committer, `live-node-court` too.
fn role(name: &str) -> &str {
    let name = name.strip_prefix("live-").unwrap_or(name);
    name.split('-').next().unwrap_or(name)
}

/// What was used between two looks.
pub(crate) fn since(now: &Usages, before: &Usages) -> Usages {
    let since = |(role, usage): (&String, &Usage)| {
        let spent = before.get(role).map_or(0.0, |before| before.cpu_seconds);
        (role.clone(), Usage { cpu_seconds: usage.cpu_seconds - spent, ..*usage })
    };
    now.iter().map(since).collect()
}

/// Processes by parent.
fn children() -> anyhow::Result<BTreeMap<u32, Vec<u32>>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        // Others may end while they are looked at.
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let parent = fields(pid).ok().and_then(|fields| fields.get(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    Ok(children)
}

/// The fields of `/proc/PID/stat` from the third on.
fn fields(pid: u32) -> anyhow::Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("stat")?.1;
    Ok(after_name.split_whitespace().map(str::to_owned).collect())
}

impl Usage {
    fn of(pid: u32) -> anyhow::Result<Self> {
        // User and system time, its own and that of children that have ended.
        let ticks: f64 = fields(pid)?.iter().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mib = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
        };
        Ok(Self { cpu_seconds: ticks / TICKS_PER_SECOND, rss_mib: mib("VmRSS:"), rss_peak_mib: mib("VmHWM:") })
    }

    fn add(&mut self, other: &Self) {
        self.cpu_seconds += other.cpu_seconds;
        self.rss_mib += other.rss_mib;
        self.rss_peak_mib += other.rss_peak_mib;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_is_counted_with_that_of_children() {
        let before = Processes::one(std::process::id()).usage().unwrap();
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let more = loop {
            let used = since(&Processes::one(std::process::id()).usage().unwrap(), &before)["all roles"].cpu_seconds;
            if used > 0.05 {
                break used;
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        let ended = since(&Processes::one(std::process::id()).usage().unwrap(), &before)["all roles"].cpu_seconds;
        assert!(ended >= more, "{ended} {more}");
    }

    #[test]
    fn roles_are_what_stands_before_the_number() {
        let names = ["node-court", "committer-1", "live-node-court", "kafka"];
        assert_eq!(names.map(role), ["node", "committer", "node", "kafka"]);
    }
}
