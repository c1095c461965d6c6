//! C2SP `tlog-policy`: whose signatures a verifier trusts, and how many it needs.
//!
//! [`PolicyFile::text_of_members`] is a pure function of a member set, so every member publishes
//! the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::{
    checkpoint::decimal_u63,
    member::MemberSet,
    note::{KeyType, VerifierKey},
};

/// The specification recommends supporting at least 32 of each; more is refused.
pub const POLICY_ITEMS_MAX: usize = 64;

/// What a name of the policy stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A witness: index into [`PolicyFile::witnesses`].
    Witness(usize),
    /// At least `k` of the named nodes.
    Group {
        /// Threshold.
        k: usize,
        /// Members of the group.
        members: Vec<String>,
    },
}

/// A parsed policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// Log keys; all bear the origin as name.
    pub logs: Vec<VerifierKey>,
    /// Cosigner keys.
    pub witnesses: Vec<VerifierKey>,
    /// Witnesses and groups by name.
    pub nodes: BTreeMap<String, Node>,
    /// The name that must have witnessed; `None` for `quorum none`.
    pub quorum: Option<String>,
}

/// Why a policy could not be read.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
#[error("policy line {line}: {fault}")]
pub struct PolicyFileError {
    /// One-based line number; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub fault: &'static str,
}

impl PolicyFile {
    /// Reads a policy file.
    pub fn parse(text: &str) -> Result<Self, PolicyFileError> {
        let mut parser = Parser::default();
        for (at, line) in text.split('\n').enumerate() {
            parser.line(line).map_err(|fault| PolicyFileError { line: at + 1, fault })?;
        }
        parser.finish().map_err(|fault| PolicyFileError { line: 0, fault })
    }

    /// Reads a policy file of any octets: those outside ASCII are opaque to the specification.
    ///
    /// A file that is not UTF-8 is read octet by octet, so that two names stay two names.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, PolicyFileError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(_) => Self::parse(&bytes.iter().map(|byte| char::from(*byte)).collect::<String>()),
        }
    }

    /// The policy of a member set: `q` of its members, `q = floor(2n/3) + 1`.
    #[must_use]
    pub fn text_of_members(origin: &str, members: &MemberSet) -> String {
        let mut out = format!("# Chopmark trust policy of {origin}\n");
        for member in members.iter() {
            out.push_str(&format!("log {}\n", member.log_verifier(origin).vkey()));
        }
        let mut names = String::new();
        for member in members.iter() {
            out.push_str(&format!("witness {} {}\n", member.domain, member.cosigner_verifier().vkey()));
            names.push(' ');
            names.push_str(&member.domain);
        }
        out.push_str(&format!("group members {}{names}\nquorum members\n", members.quorum()));
        out
    }

    /// Witnesses below the quorum node, for "k of n".
    #[must_use]
    pub fn quorum_witnesses(&self) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&str> = self.quorum.iter().map(String::as_str).collect();
        while let Some(name) = open.pop() {
            match self.nodes.get(name) {
                Some(Node::Witness(at)) => {
                    found.insert(*at);
                }
                Some(Node::Group { members, .. }) => open.extend(members.iter().map(String::as_str)),
                None => {}
            }
        }
        found
    }

    /// Whether every group has witnesses only, no groups.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        let witness = |name: &String| matches!(self.nodes.get(name), Some(Node::Witness(_)));
        self.nodes.values().all(|node| match node {
            Node::Witness(_) => true,
            Node::Group { members, .. } => members.iter().all(witness),
        })
    }

    /// Whether these witnesses (indexes) satisfy the quorum.
    #[must_use]
    pub fn satisfied_by(&self, cosigned: &BTreeSet<usize>) -> bool {
        self.quorum.as_deref().is_none_or(|name| self.witnessed(name, cosigned))
    }

    // Groups refer to earlier names only, so this ends.
    fn witnessed(&self, name: &str, cosigned: &BTreeSet<usize>) -> bool {
        match self.nodes.get(name) {
            Some(Node::Witness(at)) => cosigned.contains(at),
            Some(Node::Group { k, members }) => {
                members.iter().filter(|member| self.witnessed(member, cosigned)).count() >= *k
            }
            None => false,
        }
    }
}

#[derive(Default)]
struct Parser {
    logs: Vec<VerifierKey>,
    witnesses: Vec<VerifierKey>,
    nodes: BTreeMap<String, Node>,
    grouped: BTreeSet<String>,
    quorum: Option<Option<String>>,
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<(), &'static str> {
        if line.bytes().any(|byte| byte != b'\t' && (byte < 0x20 || byte == 0x7f)) {
            return Err("control character");
        }
        let items: Vec<&str> = line.split([' ', '\t']).filter(|item| !item.is_empty()).collect();
        match items[..] {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            ["log", vkey] | ["log", vkey, _] => self.log(vkey),
            ["witness", name, vkey] | ["witness", name, vkey, _] => self.witness(name, vkey),
            ["group", name, threshold, ref members @ ..] => self.group(name, threshold, members),
            ["quorum", name] => self.quorum(name),
            _ => Err("not a log, witness, group or quorum line"),
        }
    }

    fn log(&mut self, vkey: &str) -> Result<(), &'static str> {
        let key = VerifierKey::parse(vkey).map_err(|_| "log key is malformed")?;
        if key.key_type() != KeyType::Ed25519 {
            return Err("a log key has signature type 0x01");
        }
        if self.logs.iter().any(|log| log.key() == key.key()) {
            return Err("log key twice");
        }
        if self.logs.len() == POLICY_ITEMS_MAX {
            return Err("too many logs");
        }
        self.logs.push(key);
        Ok(())
    }

    fn witness(&mut self, name: &str, vkey: &str) -> Result<(), &'static str> {
        let key = VerifierKey::parse(vkey).map_err(|_| "witness key is malformed")?;
        if key.key_type() != KeyType::Cosignature {
            return Err("a witness key has signature type 0x04");
        }
        if self.witnesses.iter().any(|witness| witness.key() == key.key()) {
            return Err("witness key twice");
        }
        self.define(name, Node::Witness(self.witnesses.len()))?;
        self.witnesses.push(key);
        Ok(())
    }

    fn group(&mut self, name: &str, threshold: &str, members: &[&str]) -> Result<(), &'static str> {
        let k = match threshold {
            "any" => 1,
            "all" => members.len(),
            number => decimal_u63(number)
                .and_then(|k| usize::try_from(k).ok())
                .ok_or("group threshold is not a number, 'any' or 'all'")?,
        };
        if k == 0 || k > members.len() {
            return Err("group threshold is not between 1 and its members");
        }
        for member in members {
            if !self.nodes.contains_key(*member) {
                return Err("group member is not defined above");
            }
            if !self.grouped.insert((*member).to_owned()) {
                return Err("group member is in a group already");
            }
        }
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        self.define(name, Node::Group { k, members })
    }

    fn quorum(&mut self, name: &str) -> Result<(), &'static str> {
        if self.quorum.is_some() {
            return Err("second quorum line");
        }
        let name = (name != "none").then(|| name.to_owned());
        if name.as_ref().is_some_and(|name| !self.nodes.contains_key(name)) {
            return Err("quorum is not defined above");
        }
        self.quorum = Some(name);
        Ok(())
    }

    fn define(&mut self, name: &str, node: Node) -> Result<(), &'static str> {
        if name == "none" || self.nodes.contains_key(name) {
            return Err("name is taken");
        }
        if self.nodes.len() == 2 * POLICY_ITEMS_MAX {
            return Err("too many witnesses and groups");
        }
        self.nodes.insert(name.to_owned(), node);
        Ok(())
    }

    fn finish(self) -> Result<PolicyFile, &'static str> {
        let quorum = self.quorum.ok_or("no quorum line")?;
        let first = self.logs.first().ok_or("no log line")?;
        if self.logs.iter().any(|log| log.name() != first.name()) {
            return Err("log keys under different origins");
        }
        Ok(PolicyFile { logs: self.logs, witnesses: self.witnesses, nodes: self.nodes, quorum })
    }
}
