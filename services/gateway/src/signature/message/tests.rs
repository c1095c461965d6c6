use actix_web::http::header::HeaderValue;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature as Ed25519Signature, VerifyingKey};

use super::*;

const ID: &str = "sgk_0123456789abcdef01234567";
/// 64 bytes of zero.
const ZEROS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// The request of RFC 9421, appendix B.2.
fn request_of_the_rfc() -> (Uri, HeaderMap) {
    let digest = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";
    let headers = headers(&[
        ("host", "example.com"),
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("content-type", "application/json"),
        ("content-digest", digest),
        ("content-length", "18"),
    ]);
    ("/foo?param=Value&Pet=dog".parse().unwrap(), headers)
}

/// RFC 9421, appendix B.2.6: base and signature under `test-key-ed25519`.
#[test]
fn the_example_of_the_rfc_verifies() {
    let input = "sig-b26=(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\")\
                 ;created=1618884473;keyid=\"test-key-ed25519\"";
    let value = "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:";
    // Not a key of ours.
    assert_eq!(Signature::read(input, value).unwrap_err(), Flaw::Key);

    let (inputs, values) = (dictionary(input).unwrap(), dictionary(value).unwrap());
    let (Some(ListEntry::InnerList(list)), Some(ListEntry::Item(item))) =
        (inputs.get("sig-b26"), values.get("sig-b26"))
    else {
        panic!("a list and an item")
    };
    let signature = Signature::of(list, item.bare_item.as_byte_sequence().unwrap()).unwrap();
    let (uri, headers) = request_of_the_rfc();
    let request = Request { method: "POST", uri: &uri, headers: &headers };
    let base = signature.base(&request, "https").unwrap();
    let expected = "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\
                    \"@method\": POST\n\
                    \"@path\": /foo\n\
                    \"@authority\": example.com\n\
                    \"content-type\": application/json\n\
                    \"content-length\": 18\n\
                    \"@signature-params\": (\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \
                    \"content-length\");created=1618884473;keyid=\"test-key-ed25519\"";
    assert_eq!(base, expected);
    let key = STANDARD.decode("JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=").unwrap();
    let key = VerifyingKey::from_bytes(&key.try_into().unwrap()).unwrap();
    let bytes = Ed25519Signature::from_bytes(&signature.bytes);
    key.verify_strict(base.as_bytes(), &bytes).unwrap();
    let other = Request { method: "PUT", uri: &uri, headers: &headers };
    assert!(key.verify_strict(signature.base(&other, "https").unwrap().as_bytes(), &bytes).is_err());
}

/// What another implementation signed: http-message-signatures 3.0.0 (Python), under the key whose seed is
/// 32 times 7.
#[test]
fn what_another_implementation_signs_verifies() {
    let digest = "sha-256=:7QT9atBpYDDbdOn1RrY5r3aM+7bjJuLWTEGNGTNa9os=:";
    let headers = headers(&[
        ("idempotency-key", "order-1"),
        ("content-type", "application/json"),
        ("host", "api.example.com"),
        ("content-length", "89"),
        ("content-digest", digest),
    ]);
    let input = "lib=(\"@method\" \"@target-uri\" \"@authority\" \"@path\" \"@query\" \"content-digest\" \
                 \"idempotency-key\");created=1795334400;keyid=\"sgk_0123456789abcdef01234567\";alg=\"ed25519\"\
                 ;nonce=\"n-1\"";
    let value = "lib=:MNdpmTZaw4hrwjBjEvmSpzUhfVHoxYqdPmX55wrfrljFCSSiFZb9prpG7yifnAyYDkXroug/BvQGqTzs6bf4BA==:";
    let signature = Signature::read(input, value).unwrap();
    assert_eq!((signature.created, signature.expires), (1_795_334_400, None));
    signature.check_coverage(&headers).unwrap();
    let uri: Uri = "/v1/evidence".parse().unwrap();
    let base = signature.base(&Request { method: "POST", uri: &uri, headers: &headers }, "https").unwrap();
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
    key.verify_strict(base.as_bytes(), &Ed25519Signature::from_bytes(&signature.bytes)).unwrap();
    let body = format!(r#"{{"digests":{{"sha256":"{}"}}}}"#, "0a".repeat(32));
    let found: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(body.as_bytes()).into();
    assert_eq!(content_digest(digest), Some(found));
}

fn read(params: &str) -> Result<Signature, Flaw> {
    Signature::read(&format!("s={params}"), &format!("s=:{ZEROS}:"))
}

fn covering(components: &str) -> Signature {
    read(&format!("({components});created=1;keyid=\"{ID}\"")).unwrap()
}

#[test]
fn derived_components_are_those_of_the_rfc() {
    let (uri, headers) = request_of_the_rfc();
    let request = Request { method: "POST", uri: &uri, headers: &headers };
    for (name, value) in [
        ("@method", "POST"),
        ("@target-uri", "https://example.com/foo?param=Value&Pet=dog"),
        ("@authority", "example.com"),
        ("@scheme", "https"),
        ("@request-target", "/foo?param=Value&Pet=dog"),
        ("@path", "/foo"),
        ("@query", "?param=Value&Pet=dog"),
    ] {
        assert_eq!(request.component(name, "https").as_deref(), Ok(value), "{name}");
    }
    let bare: Uri = "/v1/cases".parse().unwrap();
    let request = Request { method: "POST", uri: &bare, headers: &headers };
    assert_eq!(request.component("@query", "https").unwrap(), "?");
    assert_eq!(request.component("@target-uri", "http").unwrap(), "http://example.com/v1/cases");
    for unknown in ["@status", "@query-param", "@nonsense", "x-absent", "Date", "", "not a name"] {
        assert_eq!(request.component(unknown, "https"), Err(Flaw::Component), "{unknown}");
    }
}

#[test]
fn the_authority_is_lower_case_and_without_its_own_port() {
    for (host, scheme, expected) in [
        ("API.Example.COM", "https", "api.example.com"),
        ("example.com:443", "https", "example.com"),
        ("example.com:443", "http", "example.com:443"),
        ("example.com:80", "http", "example.com"),
        ("127.0.0.1:8080", "http", "127.0.0.1:8080"),
    ] {
        let (uri, headers) = ("/".parse().unwrap(), headers(&[("host", host)]));
        let request = Request { method: "GET", uri: &uri, headers: &headers };
        assert_eq!(request.component("@authority", scheme).unwrap(), expected);
    }
    // That of the request line, or of HTTP/2, comes first.
    let (uri, headers) = ("http://first.example/x".parse().unwrap(), headers(&[("host", "second.example")]));
    let request = Request { method: "GET", uri: &uri, headers: &headers };
    assert_eq!(request.component("@target-uri", "http").unwrap(), "http://first.example/x");
}

/// RFC 9421, section 2.1: `X-OWS-Header`, `Cache-Control` in two lines, and one that is empty.
#[test]
fn fields_are_trimmed_and_joined() {
    let headers = headers(&[
        ("x-ows-header", "  Leading and trailing. "),
        ("cache-control", "max-age=60"),
        ("cache-control", " must-revalidate"),
        ("x-empty", ""),
    ]);
    let get = |name| joined(&headers, &HeaderName::from_static(name)).unwrap();
    assert_eq!(get("x-ows-header").as_deref(), Some("Leading and trailing."));
    assert_eq!(get("cache-control").as_deref(), Some("max-age=60, must-revalidate"));
    assert_eq!(get("x-empty").as_deref(), Some(""));
    assert_eq!(get("x-none"), None);
}

#[test]
fn what_is_not_one_signature_of_ours_is_told_apart() {
    let good = format!("(\"@method\");created=1;keyid=\"{ID}\"");
    assert!(read(&good).is_ok());
    let signature = format!("s=:{ZEROS}:");
    for (input, signature, flaw) in [
        ("".to_owned(), signature.as_str(), Flaw::Malformed),
        ("s=(".to_owned(), &signature, Flaw::Malformed),
        (format!("s=\"{ID}\""), &signature, Flaw::Malformed),
        (format!("t={good}"), &signature, Flaw::Malformed),
        (format!("s={good}"), "s=:AAAA:", Flaw::Malformed),
        (format!("s={good}"), "s=\"AAAA\"", Flaw::Malformed),
        (format!("s={good}"), "", Flaw::Malformed),
        (format!("s={good}, t={good}"), &signature, Flaw::Malformed),
        ("s=(\"@method\");created=1;keyid=7".to_owned(), &signature, Flaw::Malformed),
        (format!("s=(@method);created=1;keyid=\"{ID}\""), &signature, Flaw::Malformed),
        (format!("s=(\"@method\" \"@method\");created=1;keyid=\"{ID}\""), &signature, Flaw::Malformed),
        (format!("s=(\"@method\");created=1.5;keyid=\"{ID}\""), &signature, Flaw::Malformed),
        (format!("s=(\"@method\");created=1;expires=\"2\";keyid=\"{ID}\""), &signature, Flaw::Malformed),
        (format!("s=(\"@method\");created=1;nonce=2;keyid=\"{ID}\""), &signature, Flaw::Malformed),
        (
            format!(
                "s=({});created=1;keyid=\"{ID}\"",
                (0..65).map(|n| format!("\"x-{n}\" ")).collect::<String>().trim()
            ),
            &signature,
            Flaw::Malformed,
        ),
        (format!("s=(\"date\";sf);created=1;keyid=\"{ID}\""), &signature, Flaw::Component),
        (format!("s=(\"@method\");keyid=\"{ID}\""), &signature, Flaw::Lacks("created")),
        ("s=(\"@method\");created=1".to_owned(), &signature, Flaw::Lacks("keyid")),
        (format!("s=(\"@method\");created=1;keyid=\"{ID}\";alg=\"rsa-pss-sha512\""), &signature, Flaw::Algorithm),
        ("s=(\"@method\");created=1;keyid=\"other\"".to_owned(), &signature, Flaw::Key),
        ("s=(\"@method\");created=1, t=(\"@method\");created=1".to_owned(), &signature, Flaw::Key),
    ] {
        assert_eq!(Signature::read(&input, signature).unwrap_err(), flaw, "{input}");
    }
    // A proxy's beside it, before or after.
    for inputs in [format!("s={good}, p=(\"date\");keyid=\"proxy\""), format!("p=(\"date\"), s={good}")] {
        let read = Signature::read(&inputs, &format!("p=:AAAA:, {signature}")).unwrap();
        assert_eq!((read.key_id.as_str(), read.components.as_slice()), (ID, ["@method".to_owned()].as_slice()));
    }
}

#[test]
fn enough_has_to_be_covered() {
    let (plain, keyed) = (headers(&[]), headers(&[("idempotency-key", "k")]));
    for (components, headers, expected) in [
        ("\"@method\" \"@target-uri\"", &plain, Ok(())),
        ("\"@query\" \"@path\" \"@authority\" \"@method\"", &plain, Ok(())),
        ("\"@method\" \"@target-uri\" \"idempotency-key\"", &keyed, Ok(())),
        ("\"@method\" \"@target-uri\"", &keyed, Err(Flaw::Lacks("idempotency-key"))),
        ("\"@target-uri\"", &plain, Err(Flaw::Lacks("@method"))),
        ("\"@method\"", &plain, Err(Flaw::Lacks("@target-uri"))),
        ("\"@method\" \"@path\" \"@query\"", &plain, Err(Flaw::Lacks("@target-uri"))),
        ("\"@method\" \"@authority\" \"@query\"", &plain, Err(Flaw::Lacks("@path"))),
        ("\"@method\" \"@authority\" \"@path\"", &plain, Err(Flaw::Lacks("@query"))),
    ] {
        assert_eq!(covering(components).check_coverage(headers), expected, "{components}");
    }
}

#[test]
fn a_base_has_a_bound() {
    let uri: Uri = "/".parse().unwrap();
    for (length, fits) in [(1800, true), (2100, false)] {
        let headers = headers(&[("x-long", &"l".repeat(length))]);
        let request = Request { method: "POST", uri: &uri, headers: &headers };
        assert_eq!(covering("\"x-long\"").base(&request, "https").is_ok(), fits);
    }
}

#[test]
fn the_parameters_keep_their_order() {
    let uri: Uri = "/".parse().unwrap();
    let signature =
        read(&format!("(\"@method\" );nonce=\"n\";created=1;tag=\"t\";keyid=\"{ID}\";alg=\"ed25519\";x")).unwrap();
    let request = Request { method: "GET", uri: &uri, headers: &headers(&[]) };
    let expected = format!(
        "\"@method\": GET\n\"@signature-params\": (\"@method\");nonce=\"n\";created=1;tag=\"t\";keyid=\"{ID}\";alg=\"ed25519\";x"
    );
    assert_eq!(signature.base(&request, "https").unwrap(), expected);
}

#[test]
fn a_content_digest_is_read() {
    let zeros = STANDARD.encode([0; 32]);
    assert_eq!(content_digest(&format!("sha-256=:{zeros}:")), Some([0; 32]));
    assert_eq!(content_digest(&format!("sha-512=:AAAA:, sha-256=:{zeros}:, md5=:AA==:")), Some([0; 32]));
    for bad in
        ["", "sha-512=:AAAA:", "sha-256=:AAAA:", "SHA-256=AAAA", "sha-256=\"AAAA\"", "sha-256", "sha-256=(:AAAA:)"]
    {
        assert_eq!(content_digest(bad), None, "{bad}");
    }
    assert_eq!(content_digest(&format!("sha-256={zeros}")), None);
}
