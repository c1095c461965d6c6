//! What tenants do with webhooks: keep endpoints, read what was delivered, and have it sent again.

use std::sync::Arc;

use chopmark_api::{
    Problem, ProblemCode,
    lang::Text,
    page::Cursor,
    problem::{Arg, Fault, Place},
};
use ledger_core::hash::Hash32;
use zeroize::Zeroizing;

use crate::{
    access::Caller,
    cursor, failure,
    id::{IdIssuer, IdKind, ResourceKey},
    ports::{Clock, EndpointInsertion, Random, UrlFault, WebhookStore, WebhookUrls},
    seal::KeyEncryptionKey,
    webhook::{
        AttemptRow, DeliveryQuery, DeliveryRow, EndpointRow, EndpointState, EventType, OutboxEvent, ReplayRange,
    },
};

/// Endpoints of a tenant: each is one more delivery of every event.
pub const ENDPOINTS_MAX: u32 = 16;
/// A change that meets another one is made again; a tenant does not make more at a time.
const UPDATES_MAX: usize = 4;

/// What a gateway needs for webhooks.
#[derive(Clone)]
#[expect(missing_docs, reason = "each port's trait says what it is")]
pub struct WebhookPorts {
    pub store: Arc<dyn WebhookStore>,
    pub urls: Arc<dyn WebhookUrls>,
}

/// The webhooks of tenants.
pub struct Endpoints {
    pub(crate) network: String,
    pub(crate) ids: IdIssuer,
    pub(crate) ports: WebhookPorts,
    pub(crate) kek: KeyEncryptionKey,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
}

/// An endpoint to be.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// Whereto.
    pub url: String,
    /// Names of the events it wants; none: all.
    pub events: Vec<String>,
    /// For people.
    pub description: Option<String>,
}

/// What changes of an endpoint; the rest stays.
#[derive(Debug, Clone, Default)]
pub struct EndpointChange {
    /// Whereto.
    pub url: Option<String>,
    /// Names of the events it wants.
    pub events: Option<Vec<String>>,
    /// For people.
    pub description: Option<String>,
    /// Whether it is told anything.
    pub enabled: Option<bool>,
}

/// An endpoint with the secret that signs from now on.
pub struct WithSecret {
    /// The endpoint.
    pub endpoint: EndpointRow,
    /// Its secret.
    pub secret: Zeroizing<Vec<u8>>,
}

impl WithSecret {
    /// The secret as Standard Webhooks writes it.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("whsec_{}", data_encoding::BASE64.encode(&self.secret)))
    }
}

/// A page of deliveries.
#[derive(Debug)]
pub struct DeliveryPage {
    /// The newest first.
    pub items: Vec<DeliveryRow>,
    /// Where the next begins.
    pub next_cursor: Option<String>,
}

impl Endpoints {
    /// Adds an endpoint under its idempotency key. The same again gives the same, with its secret.
    pub async fn create(&self, caller: &Caller, key: &str, new: NewEndpoint) -> Result<WithSecret, Problem> {
        let tenant = &caller.tenant;
        let url = self.url(&new.url)?;
        let events = events(&new.events)?;
        let names: Vec<_> = events.iter().map(|event| event.as_str()).collect();
        let canonical = serde_json::to_vec(&(&url, names, &new.description));
        let canonical = canonical.map_err(|_| failure::broken("an endpoint's request"))?;
        let request = tenant.request_digest("webhook.endpoint", &canonical);
        let id = ResourceKey::of(&Hash32(*tenant.webhook("endpoint", [self.network.as_bytes(), key.as_bytes()])), 0);
        let secret = secret(caller, "secret", &id, key);
        let endpoint = EndpointRow {
            network: self.network.clone(),
            id,
            tenant: tenant.id().to_owned(),
            request,
            url,
            events,
            description: new.description,
            secret: self.wrap(tenant.id(), &id, &secret)?,
            previous_secret: None,
            state: EndpointState::Enabled,
            disabled_at: None,
            failing_since: None,
            created_at: self.clock.now_ms(),
            version: 1,
        };
        let inserted = self.ports.store.insert_endpoint(endpoint.clone(), ENDPOINTS_MAX).await;
        match inserted.map_err(|error| failure::port(&error))? {
            EndpointInsertion::New => Ok(WithSecret { endpoint, secret }),
            EndpointInsertion::Known(known) if known.tenant == tenant.id() && known.request == request => {
                let secret = self.unwrap(&known)?;
                Ok(WithSecret { endpoint: *known, secret })
            }
            EndpointInsertion::Known(_) => Err(ProblemCode::IdempotencyConflict.into()),
            EndpointInsertion::TooMany => {
                Err(Fault::new(ProblemCode::WebhookEndpointsTooMany).limit("limit", ENDPOINTS_MAX as usize).into())
            }
        }
    }

    /// A tenant's endpoints, the oldest first.
    pub async fn all(&self, caller: &Caller) -> Result<Vec<EndpointRow>, Problem> {
        let found = self.ports.store.endpoints(&self.network, caller.tenant.id()).await;
        found.map_err(|error| failure::port(&error))
    }

    /// One endpoint.
    pub async fn read(&self, caller: &Caller, id: &[u8; 24]) -> Result<EndpointRow, Problem> {
        let key = self.key(caller, IdKind::Endpoint, id, ProblemCode::WebhookEndpointNotFound)?;
        let all = self.all(caller).await?;
        all.into_iter().find(|endpoint| endpoint.id == key).ok_or_else(not_found)
    }

    /// Changes an endpoint. What was pending for one that is disabled is given up.
    pub async fn change(&self, caller: &Caller, id: &[u8; 24], change: EndpointChange) -> Result<EndpointRow, Problem> {
        let url = change.url.as_deref().map(|url| self.url(url)).transpose()?;
        let wanted = change.events.as_deref().map(events).transpose()?;
        let apply = |endpoint: &mut EndpointRow, now: u64| {
            if let Some(url) = &url {
                endpoint.url.clone_from(url);
            }
            if let Some(wanted) = &wanted {
                endpoint.events.clone_from(wanted);
            }
            if let Some(description) = &change.description {
                endpoint.description = Some(description.clone());
            }
            match change.enabled {
                Some(true) => (endpoint.state, endpoint.disabled_at) = (EndpointState::Enabled, None),
                Some(false) if endpoint.state == EndpointState::Enabled => {
                    (endpoint.state, endpoint.disabled_at) = (EndpointState::Disabled, Some(now));
                }
                _ => {}
            }
        };
        self.update(caller, id, apply).await
    }

    /// Another secret under an idempotency key; the one before signs too, for a while. The same key again
    /// gives the same secret and changes nothing.
    pub async fn rotate(
        &self,
        caller: &Caller,
        id: &[u8; 24],
        key: &str,
        overlap_ms: u64,
    ) -> Result<WithSecret, Problem> {
        let endpoint = self.read(caller, id).await?;
        let secret = secret(caller, "rotated secret", &endpoint.id, key);
        if self.unwrap(&endpoint)? == secret {
            return Ok(WithSecret { endpoint, secret });
        }
        let wrapped = self.wrap(caller.tenant.id(), &endpoint.id, &secret)?;
        let apply = |endpoint: &mut EndpointRow, now: u64| {
            // The same request, at another gateway at the same time, was first.
            if self.unwrap(endpoint).is_ok_and(|current| current == secret) {
                return;
            }
            let before = std::mem::replace(&mut endpoint.secret, wrapped.clone());
            endpoint.previous_secret = (overlap_ms > 0).then_some((before, now.saturating_add(overlap_ms)));
        };
        Ok(WithSecret { endpoint: self.update(caller, id, apply).await?, secret })
    }

    async fn update(
        &self,
        caller: &Caller,
        id: &[u8; 24],
        apply: impl Fn(&mut EndpointRow, u64),
    ) -> Result<EndpointRow, Problem> {
        for _ in 0..UPDATES_MAX {
            let mut endpoint = self.read(caller, id).await?;
            apply(&mut endpoint, self.clock.now_ms());
            endpoint.version += 1;
            let updated = self.ports.store.update_endpoint(endpoint.clone()).await;
            if updated.map_err(|error| failure::port(&error))? {
                return Ok(endpoint);
            }
        }
        Err(ProblemCode::Overloaded.into())
    }

    /// Removes an endpoint with its deliveries.
    pub async fn delete(&self, caller: &Caller, id: &[u8; 24]) -> Result<(), Problem> {
        let key = self.key(caller, IdKind::Endpoint, id, ProblemCode::WebhookEndpointNotFound)?;
        let deleted = self.ports.store.delete_endpoint(&self.network, caller.tenant.id(), &key).await;
        if deleted.map_err(|error| failure::port(&error))? { Ok(()) } else { Err(not_found()) }
    }

    /// Sends a test; the id is that of its delivery.
    pub async fn test(&self, caller: &Caller, id: &[u8; 24]) -> Result<ResourceKey, Problem> {
        let endpoint = self.read(caller, id).await?;
        if endpoint.state != EndpointState::Enabled {
            return Err(ProblemCode::WebhookEndpointDisabled.into());
        }
        let mut nonce = [0; 16];
        self.random.fill(&mut nonce).map_err(|error| failure::port(&error))?;
        let event = OutboxEvent::test(&endpoint, &nonce, self.clock.now_ms());
        let delivery = event.delivery_to(&endpoint.id);
        let pushed = self.ports.store.push_event(event, &endpoint.id).await;
        pushed.map_err(|error| failure::port(&error))?;
        Ok(delivery)
    }

    /// A page of deliveries. `filter`'s network, tenant, place and limit are set here.
    pub async fn deliveries(
        &self,
        caller: &Caller,
        endpoint: Option<&[u8; 24]>,
        filter: DeliveryQuery,
        (cursor, limit): (Option<&Cursor>, u16),
    ) -> Result<DeliveryPage, Problem> {
        let tenant = caller.tenant.id();
        let key = |id| self.key(caller, IdKind::Endpoint, id, ProblemCode::WebhookEndpointNotFound);
        let endpoint = endpoint.map(key).transpose()?;
        let scope = serde_json::to_vec(&(
            "webhook.deliveries",
            tenant,
            endpoint.map(|key| key.0),
            filter.state.map(|state| state.number()),
            (filter.from, filter.to),
        ));
        let scope = scope.map_err(|_| failure::broken("a query of deliveries"))?;
        let before = cursor::read(&self.ids, &[&scope], cursor)?;
        let query = DeliveryQuery {
            network: self.network.clone(),
            tenant: tenant.to_owned(),
            endpoint,
            before,
            limit: u32::from(limit) + 1,
            ..filter
        };
        let found = self.ports.store.deliveries(query).await;
        let mut items = found.map_err(|error| failure::port(&error))?;
        let more = items.len() > usize::from(limit);
        items.truncate(usize::from(limit));
        let last = items.last().filter(|_| more);
        let next_cursor = last.map(|last| cursor::issue(&self.ids, &[&scope], last.sequence));
        Ok(DeliveryPage { items, next_cursor })
    }

    /// One delivery with its attempts.
    pub async fn delivery(&self, caller: &Caller, id: &[u8; 24]) -> Result<(DeliveryRow, Vec<AttemptRow>), Problem> {
        let key = self.key(caller, IdKind::Delivery, id, ProblemCode::WebhookDeliveryNotFound)?;
        let found = self.ports.store.delivery(&self.network, caller.tenant.id(), &key).await;
        let found = found.map_err(|error| failure::port(&error))?;
        found.ok_or_else(|| Problem::parameter(ProblemCode::WebhookDeliveryNotFound, "id"))
    }

    /// Makes one delivery again, whatever came of it.
    pub async fn replay(&self, caller: &Caller, id: &[u8; 24]) -> Result<DeliveryRow, Problem> {
        let (delivery, _) = self.delivery(caller, id).await?;
        self.require_enabled(caller, &delivery.endpoint).await?;
        let replayed =
            self.ports.store.replay(&self.network, caller.tenant.id(), &delivery.id, self.clock.now_ms()).await;
        replayed.map_err(|error| failure::port(&error))?;
        Ok(self.delivery(caller, id).await?.0)
    }

    /// Makes the deliveries of a range to an endpoint again, and says how many.
    pub async fn replay_range(&self, caller: &Caller, id: &[u8; 24], range: ReplayRange) -> Result<u64, Problem> {
        let key = self.key(caller, IdKind::Endpoint, id, ProblemCode::WebhookEndpointNotFound)?;
        self.require_enabled(caller, &key).await?;
        let tenant = caller.tenant.id();
        let replayed = self.ports.store.replay_range(&self.network, tenant, &key, range, self.clock.now_ms()).await;
        replayed.map_err(|error| failure::port(&error))
    }

    async fn require_enabled(&self, caller: &Caller, endpoint: &ResourceKey) -> Result<(), Problem> {
        let all = self.all(caller).await?;
        match all.iter().find(|known| known.id == *endpoint) {
            Some(known) if known.state == EndpointState::Enabled => Ok(()),
            Some(_) => Err(ProblemCode::WebhookEndpointDisabled.into()),
            None => Err(not_found()),
        }
    }

    fn key(&self, caller: &Caller, kind: IdKind, id: &[u8; 24], code: ProblemCode) -> Result<ResourceKey, Problem> {
        let key = self.ids.recognise_bytes(kind, caller.tenant.id(), id);
        key.ok_or_else(|| Problem::parameter(code, "id"))
    }

    fn url(&self, text: &str) -> Result<String, Problem> {
        self.ports.urls.check(text).map_err(|fault| {
            Fault::new(ProblemCode::WebhookUrlRefused)
                .with("reason", Arg::Words(reason(fault)))
                .at(Place::Pointer("/url".to_owned()))
                .into()
        })
    }

    fn wrap(&self, tenant: &str, id: &ResourceKey, secret: &[u8]) -> Result<Vec<u8>, Problem> {
        let wrapped = self.kek.wrap_webhook_secret(tenant, id, secret, self.random.as_ref());
        wrapped.map_err(|error| failure::seal(&error))
    }

    fn unwrap(&self, endpoint: &EndpointRow) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let secret = self.kek.unwrap_webhook_secret(&endpoint.tenant, &endpoint.id, &endpoint.secret);
        secret.map_err(|error| failure::seal(&error))
    }
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoints").field("network", &self.network).finish_non_exhaustive()
    }
}

/// Both signers of a rotation are 32 bytes, as Standard Webhooks advises.
fn secret(caller: &Caller, label: &str, endpoint: &ResourceKey, key: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(caller.tenant.webhook(label, [&endpoint.0, key.as_bytes()]).to_vec())
}

fn not_found() -> Problem {
    Problem::parameter(ProblemCode::WebhookEndpointNotFound, "id")
}

fn events(names: &[String]) -> Result<Vec<EventType>, Problem> {
    let mut events = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        let unknown = || {
            let fault = Fault::new(ProblemCode::WebhookEventUnknown).with("known", Arg::Names(EventType::NAMES));
            Problem::from(fault.at(Place::Pointer(format!("/events/{at}"))))
        };
        let event = EventType::parse(name).ok_or_else(unknown)?;
        if !events.contains(&event) {
            events.push(event);
        }
    }
    events.sort_unstable();
    Ok(events)
}

const fn reason(fault: UrlFault) -> Text {
    match fault {
        UrlFault::Malformed => {
            Text::new("it is not a URL of at most 2048 characters", "它不是长度不超过 2048 个字符的 URL")
        }
        UrlFault::Scheme => Text::new("it does not begin with https://", "它不是以 https:// 开头"),
        UrlFault::UserInfo => Text::new("it has a user or a password in it", "其中包含用户名或密码"),
        UrlFault::Fragment => Text::new("it has a fragment (#) in it", "其中包含片段（#）"),
        UrlFault::Port => Text::new("its port is not one that we send to", "不允许向该端口发送"),
        UrlFault::Host => Text::new("its host is not a public name", "其主机名不是公共域名"),
        UrlFault::Address => Text::new("its address is not a public one", "其地址不是公网地址"),
    }
}
