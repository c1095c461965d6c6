//! Files: a multipart stream whose digests are computed as it passes.

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::{HttpRequest, HttpResponse, http::header};
use bytes::BytesMut;
use chopmark_api::{
    Problem, ProblemCode,
    evidence::{EvidenceAccepted, EvidenceView, FileMetadata},
    headers, parse,
    problem::{Arg, Fault, FieldError, Place, showable},
    request::Request as _,
};
use chopmark_domain::{
    files::Intake,
    notarize::{Notarized, Write},
};
use futures_util::StreamExt as _;
use utoipa::ToSchema;

use super::{answer::WriteHeaders, evidence};
use crate::{
    auth::{Writer, shared},
    body::{self, Paced, WriteHead, announced_length, idempotency_key, values},
    config::GatewayConfig,
    refusal::Outcome,
    signature::{self, Signed, Tally},
};

const METADATA: &str = "metadata";
const FILE: &str = "file";
const PARTS: &[&str] = &[METADATA, FILE];
/// What the form adds to the file: boundaries, part headers, metadata.
const FORM_BYTES_MAX: u64 = 1024 * 1024;

/// The form of the file call.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a form that is read by hand")]
pub(crate) struct FileForm {
    /// What an evidence request says, without what is computed here. First, if at all.
    metadata: Option<FileMetadata>,
    /// The file.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// Record a file that is sent along
///
/// All three digests are computed in one pass, as the file streams in. The original is thrown
/// away unless `metadata` says `"retain": true`.
#[utoipa::path(
    post, path = "/v1/evidence/files", operation_id = "create_evidence_from_file", tag = "evidence",
    params(WriteHeaders),
    request_body(content = FileForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "Committed.", body = EvidenceView, headers(
            ("Location" = String, description = "The evidence."),
            ("Preference-Applied" = String, description = "`wait=N`, if the request asked to wait."),
        )),
        (status = 202, description = "Accepted and durable; not committed yet, or rejected by the ledger: \
            `operation.state` tells.", body = EvidenceAccepted, headers(
            ("Location" = String, description = "The evidence."),
            ("Preference-Applied" = String, description = "`wait=N`, if the request asked to wait."),
        )),
    ),
)]
pub(crate) async fn create(req: HttpRequest, writer: Writer) -> Outcome<HttpResponse> {
    let head = WriteHead::read(&req)?;
    let key = idempotency_key(&req)?;
    headers::content_encoding_identity(&values(req.headers(), &header::CONTENT_ENCODING))?;
    headers::content_type_form(&values(req.headers(), &header::CONTENT_TYPE))?;
    let config = &shared(&req)?.config;
    if announced_length(req.headers()).is_some_and(|length| length > config.file_bytes_max + FORM_BYTES_MAX) {
        return Err(too_large(config).into());
    }
    let upload = shared(&req)?.uploads.try_acquire().map_err(|_| ProblemCode::Overloaded)?;
    let write = Write { caller: &writer.0, trace: &head.trace, signature: None };
    let notarized = receive(&req, write, &key).await?;
    drop(upload);
    evidence::answer(&req, &writer, notarized, head.wait).await
}

async fn receive(req: &HttpRequest, write: Write<'_>, key: &str) -> Outcome<Notarized> {
    let shared = shared(req)?;
    let notary = &shared.services()?.notary;
    let signed = signature::of(req);
    signed.as_ref().map_or(Ok(()), Signed::check_covers_body)?;
    let tally = signed.as_ref().map(|_| Tally::default());
    let mut form = Form::new(req, &shared.config, tally.clone());
    let mut part = form.next().await?;
    let mut metadata = None;
    if let Some(mut field) = part.take_if(|field| field.name() == Some(METADATA)) {
        let bytes = form.read_small(&mut field, FileMetadata::BODY_BYTES_MAX).await?;
        metadata = Some(parse::<FileMetadata>(&bytes)?);
        // The form waits for the end of its parts' lives.
        drop(field);
        part = form.next().await?;
    }
    let mut field = part.ok_or_else(|| Problem::part(ProblemCode::FilePartMissing, FILE))?;
    expect_file(&field, metadata.is_some())?;
    let metadata = metadata.unwrap_or_default();
    let mut intake = notary.begin_file(write, &metadata).await?;
    let received = async {
        form.read_file(&mut field, &mut intake).await?;
        drop(field);
        match form.next().await? {
            None => Ok(()),
            Some(field) => Err(after_file(&field)),
        }?;
        drop(form);
        match (signed, tally) {
            (Some(signed), Some(tally)) => {
                drain(req, &shared.config, &tally).await?;
                signed.over_streamed(&tally).map(Some)
            }
            _ => Ok(None),
        }
    };
    let signature = match received.await {
        Ok(signature) => signature,
        Err(problem) => {
            intake.discard().await;
            return Err(problem.into());
        }
    };
    let write = Write { signature: signature.as_ref(), ..write };
    Ok(notary.notarize_file(write, key, metadata, intake).await?)
}

/// Reads what comes after the form's last boundary: nobody needs it, but it was signed.
async fn drain(req: &HttpRequest, config: &GatewayConfig, tally: &Tally) -> Result<(), Problem> {
    let mut rest = Paced::new(req, config).tallied(Some(tally.clone()));
    let mut left = FORM_BYTES_MAX;
    while let Some(chunk) = rest.next().await {
        let chunk = chunk.map_err(|error| body::payload_problem(&error, config))?;
        let fits = left.checked_sub(chunk.len() as u64);
        left = fits.ok_or_else(|| Problem::from(ProblemCode::MultipartInvalid))?;
    }
    Ok(())
}

/// The parts of one form, read with the gateway's bounds.
struct Form<'a> {
    parts: Multipart,
    config: &'a GatewayConfig,
}

impl<'a> Form<'a> {
    fn new(req: &HttpRequest, config: &'a GatewayConfig, tally: Option<Tally>) -> Self {
        Self { parts: Multipart::new(req.headers(), Paced::new(req, config).tallied(tally)), config }
    }

    async fn next(&mut self) -> Result<Option<Field>, Problem> {
        let field = self.parts.next().await.transpose().map_err(|error| self.problem(&error))?;
        field.map(as_it_is).transpose()
    }

    /// A part that is held in memory.
    async fn read_small(&self, field: &mut Field, limit: usize) -> Result<BytesMut, Problem> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = field.next().await {
            let chunk = chunk.map_err(|error| self.problem(&error))?;
            if bytes.len() + chunk.len() > limit {
                return Err(Fault::new(ProblemCode::BodyTooLarge).limit("limit", limit).into());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn read_file(&self, field: &mut Field, intake: &mut Intake) -> Result<(), Problem> {
        let mut size = 0;
        while let Some(chunk) = field.next().await {
            let chunk = chunk.map_err(|error| self.problem(&error))?;
            size += chunk.len() as u64;
            if size > self.config.file_bytes_max {
                return Err(too_large(self.config));
            }
            intake.write(chunk).await?;
        }
        Ok(())
    }

    fn problem(&self, error: &MultipartError) -> Problem {
        match error {
            MultipartError::Payload(error) => body::payload_problem(error, self.config),
            _ => ProblemCode::MultipartInvalid.into(),
        }
    }
}

/// An encoded part is refused: the digests would be those of the encoding and not of the file.
fn as_it_is(field: Field) -> Result<Field, Problem> {
    const PLAIN: [&str; 4] = ["identity", "7bit", "8bit", "binary"];
    let names = [header::CONTENT_ENCODING, header::HeaderName::from_static("content-transfer-encoding")];
    let is_plain = |value: &header::HeaderValue| {
        value.to_str().is_ok_and(|value| PLAIN.iter().any(|plain| value.trim().eq_ignore_ascii_case(plain)))
    };
    if names.iter().all(|name| field.headers().get_all(name).all(is_plain)) {
        return Ok(field);
    }
    Err(at_part(&field, Fault::new(ProblemCode::ContentEncodingUnsupported)))
}

fn too_large(config: &GatewayConfig) -> Problem {
    Problem::part(Fault::new(ProblemCode::FileTooLarge).with("limit", Arg::Number(config.file_bytes_max)), FILE)
}

/// Which part must come here, after the metadata if there were any.
fn expect_file(field: &Field, after_metadata: bool) -> Result<(), Problem> {
    match field.name() {
        Some(FILE) => Ok(()),
        Some(METADATA) if after_metadata => Err(Problem::part(ProblemCode::PartRepeated, METADATA)),
        _ => Err(unknown(field)),
    }
}

/// What comes after the file must not.
fn after_file(field: &Field) -> Problem {
    match field.name() {
        Some(FILE) => Problem::part(ProblemCode::PartRepeated, FILE),
        Some(METADATA) => Problem::part(ProblemCode::PartOutOfOrder, METADATA),
        _ => unknown(field),
    }
}

fn unknown(field: &Field) -> Problem {
    at_part(field, Fault::new(ProblemCode::PartUnknown).with("known", Arg::Names(PARTS)))
}

/// The fault of a part, under the caller's own name for it if that can be shown.
fn at_part(field: &Field, fault: Fault) -> Problem {
    let shown = field.name().and_then(showable).unwrap_or("?").to_owned();
    FieldError { place: Place::Part(shown.into()), fault }.into()
}
