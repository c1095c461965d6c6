//! Bodies and the headers of writes, read with a bound on size, time and memory.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::{
    HttpMessage as _, HttpRequest,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::header::{self, HeaderMap},
};
use bytes::{Bytes, BytesMut};
use chopmark_api::{
    Problem, ProblemCode, headers,
    problem::{Arg, Fault},
    query::Query,
};
use chopmark_domain::signature::RequestSignature;
use futures_util::{Stream, StreamExt as _};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    auth::shared,
    config::GatewayConfig,
    refusal::Outcome,
    signature::{self, Signed, Tally},
};

/// First allocation for a body whose length nobody knows.
const FIRST_BYTES: usize = 4 * 1024;
/// A signed body takes so many times the room: each record of a batch gets a copy of the signature.
const SIGNED_FACTOR: usize = 4;

/// The body of a request. It is held until the answer is sent: a body in chunks that nobody holds
/// would be read, and thrown away, for as long as the caller sends. One that is held and unread
/// makes the server close the connection.
#[derive(Clone)]
pub(crate) struct Incoming(Rc<RefCell<Payload>>);

impl Incoming {
    /// Takes the body aside, before the request meets a route.
    pub(crate) fn hold(req: &mut ServiceRequest) {
        match req.take_payload() {
            Payload::None => {}
            payload => {
                req.extensions_mut().insert(Self(Rc::new(RefCell::new(payload))));
            }
        }
    }

    /// Hands the body over to the answer's.
    pub(crate) fn release(res: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
        let held = res.request().extensions_mut().remove::<Self>();
        match held {
            Some(held) => res.map_body(|_, body| BoxBody::new(Holding { body, _held: held })),
            None => res,
        }
    }

    fn of(req: &HttpRequest) -> Self {
        let held = req.extensions().get::<Self>().cloned();
        held.unwrap_or_else(|| Self(Rc::new(RefCell::new(Payload::None))))
    }
}

/// The body of an answer, with that of its request.
struct Holding {
    body: BoxBody,
    _held: Incoming,
}

impl MessageBody for Holding {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

/// A whole body and the room that it takes.
pub(crate) struct Body {
    bytes: BytesMut,
    signature: Option<Arc<RequestSignature>>,
    _room: OwnedSemaphorePermit,
}

impl Body {
    /// What the request is signed with, if it is.
    pub(crate) const fn signature(&self) -> Option<&Arc<RequestSignature>> {
        self.signature.as_ref()
    }
}

impl std::ops::Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a JSON body of at most `limit` bytes, which is the one that was signed where the request is.
pub(crate) async fn json(req: &HttpRequest, limit: usize) -> Outcome<Body> {
    headers::content_encoding_identity(&values(req.headers(), &header::CONTENT_ENCODING))?;
    headers::content_type_json(&values(req.headers(), &header::CONTENT_TYPE))?;
    let announced = announced_length(req.headers());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit).into());
    }
    // A body that does not say how long it is might be as long as it may.
    let length = announced.and_then(|length| usize::try_from(length).ok());
    let shared = shared(req)?;
    let signed = signature::of(req);
    signed.as_ref().map_or(Ok(()), Signed::check_covers_body)?;
    let factor = if signed.is_some() { SIGNED_FACTOR } else { 1 };
    let room = shared.room_for(length.unwrap_or(limit).saturating_mul(factor)).ok_or(ProblemCode::Overloaded)?;
    let mut bytes = BytesMut::with_capacity(length.unwrap_or(FIRST_BYTES));
    let mut paced = Paced::new(req, &shared.config);
    while let Some(chunk) = paced.next().await {
        let chunk = chunk.map_err(|error| payload_problem(&error, &shared.config))?;
        if bytes.len() + chunk.len() > limit {
            return Err(too_large(limit).into());
        }
        bytes.extend_from_slice(&chunk);
    }
    let signature = signed.map(|signed| signed.over(&bytes)).transpose()?;
    Ok(Body { bytes, signature, _room: room })
}

fn too_large(limit: usize) -> Problem {
    Fault::new(ProblemCode::BodyTooLarge).limit("limit", limit).into()
}

/// `Content-Length`, which the server has checked.
pub(crate) fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Every value of a header.
pub(crate) fn values<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Vec<&'a [u8]> {
    headers.get_all(name).map(header::HeaderValue::as_bytes).collect()
}

/// What the head of a write says.
pub(crate) struct WriteHead {
    pub(crate) wait: Duration,
    pub(crate) trace: String,
}

impl WriteHead {
    pub(crate) fn read(req: &HttpRequest) -> Outcome<Self> {
        no_query(req)?;
        let prefer = values(req.headers(), &header::HeaderName::from_static("prefer"));
        let wait = Duration::from_secs(headers::prefer_wait(&prefer)?.into());
        Ok(Self { wait, trace: trace(req.headers()) })
    }
}

/// The idempotency key of a single write.
pub(crate) fn idempotency_key(req: &HttpRequest) -> Outcome<String> {
    let name = header::HeaderName::from_static("idempotency-key");
    Ok(headers::idempotency_key(&values(req.headers(), &name))?)
}

/// Refuses any query where none is known.
pub(crate) fn no_query(req: &HttpRequest) -> Outcome<()> {
    Query::parse(req.query_string(), &[])?;
    Ok(())
}

/// W3C `traceparent`, version 00, or nothing: a trace is a courtesy and never a reason to refuse.
fn trace(headers: &HeaderMap) -> String {
    let text = headers.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    match parts[..] {
        ["00", trace, span, flags] if hex(trace, 32) && hex(span, 16) && hex(flags, 2) => text.to_owned(),
        _ => String::new(),
    }
}

/// A body that must keep up a pace: one that trickles or stops would be held for ever.
pub(crate) struct Paced {
    payload: Incoming,
    begun: Instant,
    grace: Duration,
    bytes_per_second_min: u64,
    received: u64,
    tally: Option<Tally>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(crate) fn new(req: &HttpRequest, config: &GatewayConfig) -> Self {
        Self {
            payload: Incoming::of(req),
            begun: Instant::now(),
            grace: config.body_grace,
            bytes_per_second_min: config.body_bytes_per_second_min.max(1),
            received: 0,
            tally: None,
            sleep: None,
        }
    }

    /// Counts what passes.
    pub(crate) fn tallied(mut self, tally: Option<Tally>) -> Self {
        self.tally = tally;
        self
    }

    fn deadline(&self) -> Instant {
        self.begun + self.grace + Duration::from_secs(self.received / self.bytes_per_second_min)
    }
}

impl Stream for Paced {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut *self.payload.0.borrow_mut()).poll_next(cx);
        if let Poll::Ready(item) = polled {
            if let Some(Ok(chunk)) = &item {
                self.received += chunk.len() as u64;
                if let Some(tally) = &self.tally {
                    tally.add(chunk);
                }
            }
            return Poll::Ready(item);
        }
        let deadline = self.deadline();
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Some(Err(PayloadError::Io(io::ErrorKind::TimedOut.into()))))
    }
}

/// Why a body did not arrive.
pub(crate) fn payload_problem(error: &PayloadError, config: &GatewayConfig) -> Problem {
    match error {
        PayloadError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            let seconds = Arg::Number(config.body_grace.as_secs().max(1));
            Fault::new(ProblemCode::BodyTimeout).with("limit", seconds).into()
        }
        PayloadError::EncodingCorrupted | PayloadError::UnknownLength => ProblemCode::RequestMalformed.into(),
        PayloadError::Overflow => ProblemCode::BodyTooLarge.into(),
        _ => ProblemCode::BodyIncomplete.into(),
    }
}
