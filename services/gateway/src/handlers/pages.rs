//! Documents: the page of every problem code, and the description of this API.

use actix_web::{HttpRequest, HttpResponse, http::header};
use chopmark_api::{Lang, Problem, ProblemCode, error_index as index_page, error_page as code_page};

use super::answer::text;
use crate::{edge::lang, refusal::Outcome};

const HTML: &str = "text/html; charset=utf-8";
const MARKDOWN: &str = "text/markdown; charset=utf-8";
const AN_HOUR: &str = "public, max-age=3600";
const OPENAPI: &str = include_str!("../../../../schemas/openapi.yaml");

/// Every problem code
#[utoipa::path(
    get, path = "/errors", operation_id = "list_problem_codes", tag = "documents",
    responses((status = 200, description = "A page; HTML for browsers, else Markdown.", body = String,
        content_type = "text/markdown; charset=utf-8")),
)]
pub(crate) async fn error_index(req: HttpRequest) -> Outcome<HttpResponse> {
    Ok(page(&req, "errors", index_page()))
}

/// What a problem code means and what to do about it
#[utoipa::path(
    get, path = "/errors/{code}", operation_id = "read_problem_code", tag = "documents",
    params(("code" = ProblemCode, Path, description = "The code.")),
    responses((status = 200, description = "A page; HTML for browsers, else Markdown.", body = String,
        content_type = "text/markdown; charset=utf-8")),
)]
pub(crate) async fn error_page(req: HttpRequest) -> Outcome<HttpResponse> {
    let code = req.match_info().get("code").unwrap_or_default();
    let found = code_page(code.strip_suffix(".md").unwrap_or(code));
    let found = found.ok_or_else(|| Problem::parameter(ProblemCode::ErrorPageNotFound, "code"))?;
    Ok(page(&req, code, found))
}

/// This document
#[utoipa::path(
    get, path = "/openapi.yaml", operation_id = "read_openapi", tag = "documents",
    responses((status = 200, description = "OpenAPI 3.1.", body = String, content_type = "application/yaml")),
)]
pub(crate) async fn openapi() -> Outcome<HttpResponse> {
    Ok(text("application/yaml", AN_HOUR, OPENAPI))
}

fn page(req: &HttpRequest, title: &str, markdown: &'static str) -> HttpResponse {
    let accept = req.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let response = if accept.is_some_and(|accept| accept.contains("text/html")) {
        text(HTML, AN_HOUR, html(title, markdown, lang(req)))
    } else {
        text(MARKDOWN, AN_HOUR, markdown)
    };
    vary(response)
}

fn vary(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("Accept"));
    response
}

/// The page as it is written, in a frame that a browser shows well: the text is Markdown that
/// reads well by itself.
fn html(title: &str, markdown: &str, lang: Lang) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        concat!(
            "<!doctype html>\n<html lang=\"{}\"><head><meta charset=\"utf-8\"><title>{} · Chopmark</title>",
            "<meta name=\"viewport\" content=\"width=device-width\"><style>pre{{white-space:pre-wrap;",
            "max-width:46em;margin:2em auto;padding:0 1em;font:16px/1.5 system-ui,sans-serif}}</style>",
            "</head><body><pre>{}</pre></body></html>\n"
        ),
        lang.tag(),
        escape(title),
        escape(markdown)
    )
}
