//! RFC 9421 without keys and clocks: the signature that two headers carry, and the signature base
//! that a request gives for it. Nothing of a request's text reaches a refusal.

use actix_web::http::{
    Uri,
    header::{HOST, HeaderMap, HeaderName},
};
use chopmark_domain::{signature::BASE_BYTES_MAX, tenant::SIGNING_KEY_PREFIX};
use sfv::{BareItem, Dictionary, FieldType as _, InnerList, Item, List, ListEntry, Parser, StringRef, Version};

/// Components that a signature may cover: far above any use.
const COMPONENTS_MAX: usize = 64;
const SIGNATURE_BYTES: usize = 64;
const SHA256: &str = "sha-256";

/// Why there is no signature to be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Not as RFC 9421 and RFC 8941 write it, or too long.
    Malformed,
    /// A covered component that the request does not have, or that is not known here.
    Component,
    /// What has to be covered or said and is not.
    Lacks(&'static str),
    /// Another algorithm.
    Algorithm,
    /// It names no key of ours.
    Key,
}

/// One signature and what it says of itself.
#[derive(Debug)]
pub(super) struct Signature {
    /// Names of what is covered, in order.
    components: Vec<String>,
    /// Components and parameters, as the last line of the base has them.
    params: String,
    /// Unix seconds.
    pub(super) created: i64,
    /// Unix seconds.
    pub(super) expires: Option<i64>,
    pub(super) key_id: String,
    pub(super) bytes: [u8; SIGNATURE_BYTES],
}

/// The parts of a request that signatures cover.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
}

/// Every value of a header, as RFC 9421 (section 2.1) and RFC 8941 (section 4.2) join them.
pub(super) fn joined(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Flaw> {
    let values: Vec<_> =
        headers.get_all(name).map(|value| value.to_str()).collect::<Result<_, _>>().map_err(|_| Flaw::Malformed)?;
    if values.is_empty() {
        return Ok(None);
    }
    Ok(Some(values.iter().map(|value| value.trim_matches([' ', '\t'])).collect::<Vec<_>>().join(", ")))
}

fn dictionary(text: &str) -> Result<Dictionary, Flaw> {
    Parser::new(text).with_version(Version::Rfc8941).parse().map_err(|_| Flaw::Malformed)
}

impl Signature {
    /// The one signature that names a signing key. Others, such as those of a proxy, are passed over.
    pub(super) fn read(inputs: &str, signatures: &str) -> Result<Self, Flaw> {
        let (inputs, signatures) = (dictionary(inputs)?, dictionary(signatures)?);
        let mut found = None;
        for (label, entry) in &inputs {
            let ListEntry::InnerList(list) = entry else { return Err(Flaw::Malformed) };
            let ours = match list.params.get("keyid").map(|value| value.as_string().map(StringRef::as_str)) {
                Some(Some(id)) => id.starts_with(SIGNING_KEY_PREFIX),
                Some(None) => return Err(Flaw::Malformed),
                // A lone one is meant for us, and told what it lacks.
                None if inputs.len() == 1 => return Err(Flaw::Lacks("keyid")),
                None => false,
            };
            if ours && found.replace((label, list)).is_some() {
                return Err(Flaw::Malformed);
            }
        }
        let Some((label, list)) = found else {
            return Err(if inputs.is_empty() { Flaw::Malformed } else { Flaw::Key });
        };
        let bytes = match signatures.get(label) {
            Some(ListEntry::Item(Item { bare_item: BareItem::ByteSequence(bytes), .. })) => bytes.as_slice(),
            _ => return Err(Flaw::Malformed),
        };
        Self::of(list, bytes)
    }

    /// A member of `Signature-Input` and the bytes that `Signature` has for it.
    fn of(list: &InnerList, bytes: &[u8]) -> Result<Self, Flaw> {
        let bytes = bytes.try_into().map_err(|_| Flaw::Malformed)?;
        let components = components(&list.items)?;
        let integer = |name: &str| match list.params.get(name) {
            None => Ok(None),
            Some(BareItem::Integer(value)) => Ok(Some(i64::from(*value))),
            Some(_) => Err(Flaw::Malformed),
        };
        let string = |name: &str| match list.params.get(name) {
            None => Ok(None),
            Some(BareItem::String(value)) => Ok(Some(value.as_str().to_owned())),
            Some(_) => Err(Flaw::Malformed),
        };
        if string("alg")?.is_some_and(|algorithm| algorithm != chopmark_domain::signature::ALGORITHM) {
            return Err(Flaw::Algorithm);
        }
        string("nonce")?;
        let created = integer("created")?.ok_or(Flaw::Lacks("created"))?;
        let expires = integer("expires")?;
        let key_id = string("keyid")?.ok_or(Flaw::Lacks("keyid"))?;
        let only: List = vec![ListEntry::InnerList(list.clone())];
        let params = only.serialize().ok_or(Flaw::Malformed)?;
        Ok(Self { components, params, created, expires, key_id, bytes })
    }

    pub(super) fn covers(&self, name: &str) -> bool {
        self.components.iter().any(|component| component == name)
    }

    /// A signature stands for one request: what was asked for, where, and under which idempotency key.
    /// That it covers the body is asked for where one is read.
    pub(super) fn check_coverage(&self, headers: &HeaderMap) -> Result<(), Flaw> {
        if !self.covers("@method") {
            return Err(Flaw::Lacks("@method"));
        }
        if !self.covers("@target-uri") {
            for part in ["@authority", "@path", "@query"] {
                if !self.covers(part) {
                    return Err(Flaw::Lacks(if self.covers("@authority") { part } else { "@target-uri" }));
                }
            }
        }
        if headers.contains_key("idempotency-key") && !self.covers("idempotency-key") {
            return Err(Flaw::Lacks("idempotency-key"));
        }
        Ok(())
    }

    /// The signature base (section 2.5) of a request that was sent under `scheme`.
    pub(super) fn base(&self, request: &Request<'_>, scheme: &str) -> Result<String, Flaw> {
        let mut base = String::new();
        for name in &self.components {
            let value = request.component(name, scheme)?;
            base.push_str(&format!("\"{name}\": {value}\n"));
            if base.len() > BASE_BYTES_MAX {
                return Err(Flaw::Malformed);
            }
        }
        base.push_str(&format!("\"@signature-params\": {}", self.params));
        if base.len() > BASE_BYTES_MAX { Err(Flaw::Malformed) } else { Ok(base) }
    }
}

/// Names of components, each at most once. Their parameters would need a second reading of the
/// headers; none is known.
fn components(items: &[Item]) -> Result<Vec<String>, Flaw> {
    if items.len() > COMPONENTS_MAX {
        return Err(Flaw::Malformed);
    }
    let mut names: Vec<String> = Vec::with_capacity(items.len());
    for item in items {
        let name = item.bare_item.as_string().ok_or(Flaw::Malformed)?.as_str();
        if !item.params.is_empty() {
            return Err(Flaw::Component);
        }
        if names.iter().any(|known| known == name) {
            return Err(Flaw::Malformed);
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

impl Request<'_> {
    fn component(&self, name: &str, scheme: &str) -> Result<String, Flaw> {
        let path = || if self.uri.path().is_empty() { "/" } else { self.uri.path() };
        let query = || self.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(match name {
            "@method" => self.method.to_owned(),
            "@scheme" => scheme.to_owned(),
            "@authority" => self.authority(scheme)?,
            "@path" => path().to_owned(),
            // Without a query it is the question mark alone (section 2.2.7).
            "@query" => format!("?{}", self.uri.query().unwrap_or_default()),
            "@request-target" => format!("{}{}", path(), query()),
            "@target-uri" => format!("{scheme}://{}{}{}", self.authority(scheme)?, path(), query()),
            name => {
                let name = HeaderName::from_lowercase(name.as_bytes()).map_err(|_| Flaw::Component)?;
                joined(self.headers, &name).map_err(|_| Flaw::Component)?.ok_or(Flaw::Component)?
            }
        })
    }

    /// Host and port as the caller named them, in lower case and without the scheme's own port
    /// (section 2.2.3).
    fn authority(&self, scheme: &str) -> Result<String, Flaw> {
        let host = match self.uri.authority() {
            Some(authority) => authority.as_str().to_owned(),
            None => joined(self.headers, &HOST).map_err(|_| Flaw::Component)?.ok_or(Flaw::Component)?,
        };
        let host = host.to_ascii_lowercase();
        let own_port = if scheme == "https" { ":443" } else { ":80" };
        Ok(host.strip_suffix(own_port).unwrap_or(&host).to_owned())
    }
}

/// The SHA-256 out of `Content-Digest` (RFC 9530). Other algorithms beside it are passed over.
pub(super) fn content_digest(text: &str) -> Option<[u8; 32]> {
    match dictionary(text).ok()?.get(SHA256)? {
        ListEntry::Item(Item { bare_item: BareItem::ByteSequence(digest), .. }) => digest.as_slice().try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
