//! The one table of problem codes: a row per cause, with its status, whether the
//! same request may succeed later, and its texts in both languages. Frozen
//! contract (design 12): a code is never renamed and never given a second cause.
//!
//! Each row has a page `docs/errors/<code>.md`, which is compiled in; a row
//! without its page does not build.

use crate::lang::Text;

/// When the same request, unchanged, is worth sending again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not before something about the request is changed.
    Never,
    /// As soon as the caller likes; it costs nothing and may succeed.
    AtWill,
    /// After this many seconds, unless the answer names another time.
    After(u32),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub code: &'static str,
    pub status: u16,
    pub retry: Retry,
    pub title: Text,
    pub detail: Text,
    pub fix: Text,
    page: &'static str,
}

macro_rules! problem_codes {
    ($(
        $(#[$group:meta])*
        $variant:ident $code:tt $status:literal $retry:expr;
        title $title_en:literal, $title_zh:literal;
        detail $detail_en:literal, $detail_zh:literal;
        fix $fix_en:literal, $fix_zh:literal;
    )*) => {
        /// The cause of a problem, one code each; `/errors/<code>` explains it.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, utoipa::ToSchema,
        )]
        pub enum ProblemCode {
            $( $(#[$group])* #[serde(rename = $code)] $variant, )*
        }

        impl ProblemCode {
            /// Every code, in the order of the table.
            pub const ALL: &[ProblemCode] = &[$( ProblemCode::$variant, )*];

            /// The code's row of the table.
            #[must_use]
            pub const fn row(self) -> &'static Row {
                match self {
                    $( ProblemCode::$variant => &Row {
                        code: $code,
                        status: $status,
                        retry: $retry,
                        title: Text { en: $title_en, zh: $title_zh },
                        detail: Text { en: $detail_en, zh: $detail_zh },
                        fix: Text { en: $fix_en, zh: $fix_zh },
                        page: include_str!(concat!("../../../../docs/errors/", $code, ".md")),
                    }, )*
                }
            }

            /// The code of that name.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                match code {
                    $( $code => Some(ProblemCode::$variant), )*
                    _ => None,
                }
            }
        }
    };
}

impl ProblemCode {
    /// The code as the caller sees it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().code
    }

    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// Whether the same request, unchanged, may succeed later.
    #[must_use]
    pub const fn retryable(self) -> bool {
        !matches!(self.row().retry, Retry::Never)
    }
}

/// The page at `/errors/<code>`, Markdown, English then Chinese.
#[must_use]
pub fn error_page(code: &str) -> Option<&'static str> {
    ProblemCode::from_code(code).map(|code| code.row().page)
}

/// The page at `/errors`: every code with its title.
#[must_use]
pub fn error_index() -> &'static str {
    include_str!("../../../../docs/errors/README.md")
}

problem_codes! {
    // ---- the request line and the headers

    RouteNotFound "route_not_found" 404 Retry::Never;
    title "No such address", "没有这个地址";
    detail "No resource of this API has this path.", "本 API 没有这个路径。";
    fix "Check the path against the OpenAPI document; versioned paths begin with /v1.", "请对照 OpenAPI 文档检查路径；带版本的路径以 /v1 开头。";

    MethodNotAllowed "method_not_allowed" 405 Retry::Never;
    title "Method not allowed here", "此地址不支持该方法";
    detail "The path exists, but not with this method; it takes {allowed|the methods in the Allow header}.", "路径存在，但不支持该方法；可用的方法是{allowed|Allow 响应头中列出的方法}。";
    fix "Use a method that the Allow header of this answer names.", "请使用本响应 Allow 头列出的方法。";

    RequestMalformed "request_malformed" 400 Retry::Never;
    title "The request is not valid HTTP", "请求不是合法的 HTTP";
    detail "The request line, a header or the framing of the body breaks the rules of HTTP.", "请求行、请求头或请求体的分帧不符合 HTTP 规范。";
    fix "Send the request with an ordinary HTTP client, without setting Content-Length or Transfer-Encoding by hand.", "请使用普通的 HTTP 客户端发送，不要手工设置 Content-Length 或 Transfer-Encoding。";

    UriTooLong "uri_too_long" 414 Retry::Never;
    title "Address too long", "地址过长";
    detail "Path and query together are longer than {limit|the allowed number of} bytes.", "路径与查询串合计超过 {limit|允许的} 字节。";
    fix "Drop query parameters, or use the batch call, which takes its values in the body.", "请减少查询参数，或改用在请求体中传值的批量接口。";

    HeaderTooLarge "header_too_large" 431 Retry::Never;
    title "Headers too large", "请求头过大";
    detail "The headers together exceed {limit|the allowed number of} bytes.", "全部请求头合计超过 {limit|允许的} 字节。";
    fix "Remove headers that this API does not use, cookies first.", "请去掉本 API 不使用的请求头，首先是 Cookie。";

    AcceptUnsupported "accept_unsupported" 406 Retry::Never;
    title "No acceptable form of the answer", "没有可接受的响应格式";
    detail "This resource is served as {served|one media type}, which the Accept header rules out.", "此资源以 {served|单一媒体类型} 提供，而 Accept 请求头排除了它。";
    fix "Leave Accept out, or include {served|the media type of the resource} or */*.", "请去掉 Accept，或在其中包含 {served|该资源的媒体类型} 或 */*。";

    ContentTypeMissing "content_type_missing" 415 Retry::Never;
    title "Content type missing", "缺少内容类型";
    detail "The request has a body but no Content-Type header.", "请求带有请求体，但没有 Content-Type 请求头。";
    fix "Send Content-Type: {expected|application/json}.", "请发送 Content-Type: {expected|application/json}。";

    ContentTypeUnsupported "content_type_unsupported" 415 Retry::Never;
    title "Content type not supported", "不支持的内容类型";
    detail "The Content-Type is not {expected|the one this resource reads}.", "Content-Type 不是{expected|此接口读取的类型}。";
    fix "Send the body as {expected|application/json} and say so in Content-Type.", "请以 {expected|application/json} 发送请求体，并在 Content-Type 中注明。";

    CharsetUnsupported "charset_unsupported" 415 Retry::Never;
    title "Character set not supported", "不支持的字符集";
    detail "The charset parameter of Content-Type is not utf-8.", "Content-Type 的 charset 参数不是 utf-8。";
    fix "Encode the body in UTF-8 and leave the charset parameter out.", "请用 UTF-8 编码请求体，并去掉 charset 参数。";

    ContentEncodingUnsupported "content_encoding_unsupported" 415 Retry::Never;
    title "Compressed body refused", "不接受压缩的请求体";
    detail "The Content-Encoding is not identity.", "Content-Encoding 不是 identity。";
    fix "Send the body uncompressed and leave Content-Encoding out.", "请发送未压缩的请求体，并去掉 Content-Encoding。";

    PreferInvalid "prefer_invalid" 400 Retry::Never;
    title "Prefer header not understood", "无法理解 Prefer 请求头";
    detail "The wait preference is not a whole number of seconds from 0 to {limit|its limit}.", "wait 偏好不是 0 到 {limit|上限} 之间的整数秒。";
    fix "Send Prefer: wait=10, or leave the header out and poll the operation.", "请发送 Prefer: wait=10，或去掉该头并轮询操作状态。";

    // ---- who is calling

    ApiKeyMissing "api_key_missing" 401 Retry::Never;
    title "API key missing", "缺少 API 密钥";
    detail "The request has no Authorization header.", "请求没有 Authorization 请求头。";
    fix "Send Authorization: Bearer followed by your API key.", "请发送 Authorization: Bearer 加上你的 API 密钥。";

    AuthorizationSchemeUnsupported "authorization_scheme_unsupported" 401 Retry::Never;
    title "Authorization scheme not supported", "不支持的认证方式";
    detail "The Authorization header uses a scheme other than Bearer.", "Authorization 请求头使用的不是 Bearer 方式。";
    fix "Send Authorization: Bearer followed by your API key.", "请发送 Authorization: Bearer 加上你的 API 密钥。";

    ApiKeyMalformed "api_key_malformed" 401 Retry::Never;
    title "API key malformed", "API 密钥格式错误";
    detail "What follows Bearer does not have the form of a key of ours.", "Bearer 之后的内容不符合本系统密钥的格式。";
    fix "Copy the key whole, from cm_test_ or cm_live_ to its last character, without quotes or line breaks.", "请完整复制密钥：从 cm_test_ 或 cm_live_ 到最后一个字符，不带引号和换行。";

    ApiKeyUnknown "api_key_unknown" 401 Retry::Never;
    title "API key unknown", "API 密钥不存在";
    detail "The key is well formed, but this deployment has not issued it.", "密钥格式正确，但不是由本部署签发的。";
    fix "Check that the base URL and the key belong to the same deployment, or create a new key.", "请确认服务地址与密钥属于同一部署，或新建一个密钥。";

    ApiKeyExpired "api_key_expired" 401 Retry::Never;
    title "API key expired", "API 密钥已过期";
    detail "The key's expiry date has passed.", "密钥的有效期已过。";
    fix "Create a new key; two may live at a time, so that you can change over without a gap.", "请新建密钥；可同时存在两个有效密钥，以便平滑切换。";

    ApiKeyRevoked "api_key_revoked" 401 Retry::Never;
    title "API key revoked", "API 密钥已吊销";
    detail "The key was revoked and will not work again.", "密钥已被吊销，不会再恢复。";
    fix "Use another live key of your platform, or create a new one.", "请使用本平台的另一个有效密钥，或新建一个。";

    ApiKeyWrongNetwork "api_key_wrong_network" 401 Retry::Never;
    title "API key of another network", "API 密钥属于另一网络";
    detail "The key's prefix names a network that is not served at this address.", "密钥前缀所指的网络不在此地址提供服务。";
    fix "Use a cm_test_ key on the sandbox and a cm_live_ key on the live network.", "沙箱请使用 cm_test_ 密钥，正式网络请使用 cm_live_ 密钥。";

    ApiKeyScopeMissing "api_key_scope_missing" 403 Retry::Never;
    title "API key lacks a scope", "API 密钥缺少权限";
    detail "The key is valid, but does not carry the scope {scope|that this call needs}.", "密钥有效，但不具备{scope|本接口所需的}权限。";
    fix "Use a key that has the scope, or have one issued.", "请使用具备该权限的密钥，或申请签发一个。";

    ApiKeyAddressNotAllowed "api_key_address_not_allowed" 403 Retry::Never;
    title "API key not allowed from this address", "此地址不允许使用该 API 密钥";
    detail "The key may be used from certain networks only, and this request came from another.", "该密钥只能从指定的网络使用，而本请求来自其他地址。";
    fix "Send the request from a network on the key's list, or have the list changed.", "请从密钥名单内的网络发送请求，或申请修改名单。";

    TenantSuspended "tenant_suspended" 403 Retry::Never;
    title "Platform suspended", "平台方已被暂停";
    detail "Your platform is suspended on this network and cannot write; reading and verifying still work.", "你的平台在本网络上已被暂停，不能写入；查询与核验不受影响。";
    fix "Ask the operator for the reason; a suspension is lifted by an agreed change on the ledger.", "请向运营方了解原因；解除暂停须经账本上的共识变更。";

    // ---- signatures of requests (RFC 9421)

    SignatureRequired "signature_required" 403 Retry::Never;
    title "Signature required", "必须签名";
    detail "Your platform writes under a request signature only, and this request has none.", "你的平台只接受带签名的写请求，而本请求没有签名。";
    fix "Sign the request (RFC 9421, Ed25519) with a registered key, and send Signature-Input, Signature and Content-Digest.", "请用已登记的密钥对请求签名（RFC 9421，Ed25519），并发送 Signature-Input、Signature 和 Content-Digest。";

    SignatureMalformed "signature_malformed" 400 Retry::Never;
    title "Signature not understood", "无法理解签名";
    detail "Signature-Input and Signature cannot be read as one signature of yours, or what they cover is longer than {limit|the allowed number of} bytes.", "无法把 Signature-Input 和 Signature 读作你的一个签名，或其覆盖的内容超过 {limit|允许的} 字节。";
    fix "Build both headers with a library for RFC 9421, with one signature whose keyid is your signing key's id.", "请用支持 RFC 9421 的库生成这两个请求头，其中恰有一个签名的 keyid 是你的签名密钥的编号。";

    SignatureComponentUnknown "signature_component_unknown" 400 Retry::Never;
    title "Signature covers something unknown", "签名覆盖了未知的组成部分";
    detail "The signature covers a component that this request does not have or that is not known here.", "签名覆盖了本请求没有的、或此处不支持的组成部分。";
    fix "Cover headers that you send, and of the derived components @method, @target-uri, @authority, @scheme, @request-target, @path and @query, without parameters.", "请只覆盖你所发送的请求头，以及派生组成部分 @method、@target-uri、@authority、@scheme、@request-target、@path 和 @query，且不带参数。";

    SignatureIncomplete "signature_incomplete" 400 Retry::Never;
    title "Signature does not cover enough", "签名覆盖不全";
    detail "The signature lacks {missing|something that it must cover or say}.", "签名缺少{missing|必须覆盖或注明的内容}。";
    fix "Cover @method, @target-uri (or @authority, @path and @query), content-digest, and idempotency-key where you send one; give created and keyid.", "请覆盖 @method、@target-uri（或 @authority、@path 和 @query）、content-digest，以及所发送的 idempotency-key；并给出 created 和 keyid。";

    SignatureAlgorithmUnsupported "signature_algorithm_unsupported" 400 Retry::Never;
    title "Signature algorithm not supported", "不支持的签名算法";
    detail "The parameter alg names an algorithm other than ed25519.", "参数 alg 指明的算法不是 ed25519。";
    fix "Sign with Ed25519, and leave alg out or say ed25519.", "请使用 Ed25519 签名，并省略 alg 或填写 ed25519。";

    SignatureExpired "signature_expired" 403 Retry::Never;
    title "Signature out of its time", "签名不在有效时间内";
    detail "The signature was created more than {limit|the allowed number of} seconds before or after the server's clock, or its own expiry has passed.", "签名的创建时间与服务器时钟相差超过 {limit|允许的} 秒，或已超过其自身的失效时间。";
    fix "Set your clock, and sign every attempt anew, with the time of the attempt in created.", "请校准时钟，并在每次尝试时重新签名，created 填写该次尝试的时间。";

    SignatureKeyUnknown "signature_key_unknown" 403 Retry::Never;
    title "Signing key unknown", "签名密钥不存在";
    detail "Your platform has no signing key of this id on this network.", "你的平台在本网络上没有该编号的签名密钥。";
    fix "Give as keyid the id, sgk_ and 24 characters, under which the operator registered your public key.", "请把运营方登记你的公钥时给出的编号（sgk_ 加 24 个字符）作为 keyid。";

    SignatureKeyRevoked "signature_key_revoked" 403 Retry::Never;
    title "Signing key revoked", "签名密钥已吊销";
    detail "The signing key was revoked and will not sign again.", "该签名密钥已被吊销，不能再用于签名。";
    fix "Sign with another registered key of your platform, or have a new one registered.", "请使用你的平台的另一个已登记密钥签名，或登记新的密钥。";

    SignatureInvalid "signature_invalid" 403 Retry::Never;
    title "Signature does not verify", "签名验证不通过";
    detail "The signature is not one by the named key over this request as it arrived.", "签名不是由所指密钥对本请求（以到达时的内容为准）作出的。";
    fix "Compare your signature base with RFC 9421, section 2.5; sign with the private key of the registered public key, over the address that the server is reached under.", "请对照 RFC 9421 第 2.5 节检查你的签名基串；用与登记的公钥对应的私钥，对服务器的实际访问地址签名。";

    ContentDigestInvalid "content_digest_invalid" 400 Retry::Never;
    title "Content-Digest not understood", "无法理解 Content-Digest";
    detail "The Content-Digest header is not a dictionary with a sha-256 of 32 bytes.", "Content-Digest 请求头不是含有 32 字节 sha-256 的字典。";
    fix "Send Content-Digest: sha-256=:…:, with the Base64 of the SHA-256 of the body as it is sent.", "请发送 Content-Digest: sha-256=:…:，其中为所发送请求体的 SHA-256 的 Base64。";

    ContentDigestMismatch "content_digest_mismatch" 400 Retry::Never;
    title "Body does not match Content-Digest", "请求体与 Content-Digest 不符";
    detail "The SHA-256 of the body that arrived is not the one in Content-Digest; nothing was recorded.", "所收到的请求体的 SHA-256 与 Content-Digest 中的不一致；没有登记任何内容。";
    fix "Hash exactly the bytes that are sent: of a form, the whole body with its boundaries.", "请对实际发送的字节计算哈希：若为表单，则为包含边界的整个请求体。";

    // ---- idempotency

    IdempotencyKeyMissing "idempotency_key_missing" 400 Retry::Never;
    title "Idempotency key missing", "缺少幂等键";
    detail "A write names itself with an idempotency key, and this one has none.", "写操作须带幂等键，本请求没有。";
    fix "Send Idempotency-Key (in a batch: idempotency_key in every item) with a value of your own that you repeat when you retry, such as your order number or a UUID.", "请发送 Idempotency-Key（批量时为每一项的 idempotency_key），取值由你决定并在重试时保持不变，例如订单号或 UUID。";

    IdempotencyKeyInvalid "idempotency_key_invalid" 400 Retry::Never;
    title "Idempotency key invalid", "幂等键无效";
    detail "The idempotency key is empty, given twice, or has characters other than visible ASCII.", "幂等键为空、重复给出，或含有可见 ASCII 以外的字符。";
    fix "Use one key of 1 to {limit|the allowed number of} characters from ! to ~, without spaces.", "请使用一个幂等键，由 1 到 {limit|允许数量的} 个 ! 至 ~ 之间的字符组成，不含空格。";

    IdempotencyKeyTooLong "idempotency_key_too_long" 400 Retry::Never;
    title "Idempotency key too long", "幂等键过长";
    detail "The idempotency key has more than {limit|the allowed number of} characters.", "幂等键超过 {limit|允许数量的} 个字符。";
    fix "Use a shorter key, for instance the hash of your own identifier.", "请使用较短的键，例如你自有编号的哈希。";

    IdempotencyConflict "idempotency_conflict" 422 Retry::Never;
    title "Idempotency key already used for another request", "幂等键已用于另一请求";
    detail "This key already names an operation with other contents; nothing was changed.", "该幂等键已对应一个内容不同的操作；本次没有任何改动。";
    fix "Send the first request again to get its answer, or choose a new key for the new request.", "如需原结果，请原样重发第一个请求；新的请求请使用新的幂等键。";

    // ---- the body as a whole

    BodyMissing "body_missing" 400 Retry::Never;
    title "Body missing", "缺少请求体";
    detail "The body is empty.", "请求体为空。";
    fix "Send a JSON object.", "请发送一个 JSON 对象。";

    BodyTooLarge "body_too_large" 413 Retry::Never;
    title "Body too large", "请求体过大";
    detail "The body is larger than {limit|the allowed number of} bytes.", "请求体超过 {limit|允许的} 字节。";
    fix "Send hashes rather than files, and split a batch into smaller ones.", "请发送哈希值而不是文件，并把批量请求拆小。";

    BodyIncomplete "body_incomplete" 400 Retry::AtWill;
    title "Body ended early", "请求体提前结束";
    detail "The connection ended before the whole body had arrived.", "请求体尚未接收完整，连接就已结束。";
    fix "Send the request again, with the same idempotency key.", "请用同一幂等键重新发送。";

    BodyTimeout "body_timeout" 408 Retry::AtWill;
    title "Body took too long", "请求体接收超时";
    detail "The body did not arrive within {limit|the allowed number of} seconds.", "请求体未能在 {limit|允许的} 秒内到达。";
    fix "Send the request again, with the same idempotency key, over a faster connection or in smaller parts.", "请用同一幂等键，通过更快的连接或更小的批次重新发送。";

    BodyNotUtf8 "body_not_utf8" 400 Retry::Never;
    title "Body is not UTF-8", "请求体不是 UTF-8";
    detail "The body is not valid UTF-8 from byte {offset|some place} on.", "请求体自第 {offset|某} 字节起不是合法的 UTF-8。";
    fix "Encode the body in UTF-8; GBK and UTF-16 are not read.", "请用 UTF-8 编码请求体；不接受 GBK 或 UTF-16。";

    BodyHasBom "body_has_bom" 400 Retry::Never;
    title "Body begins with a byte-order mark", "请求体以字节序标记开头";
    detail "The body begins with a UTF-8 byte-order mark, which JSON does not allow.", "请求体以 UTF-8 字节序标记（BOM）开头，JSON 不允许这样。";
    fix "Save or encode the body without a byte-order mark.", "请以不带 BOM 的方式保存或编码请求体。";

    BodyNotJson "body_not_json" 400 Retry::Never;
    title "Body is not JSON", "请求体不是 JSON";
    detail "The body stops being valid JSON at line {line|?}, column {column|?}.", "请求体在第 {line|?} 行第 {column|?} 列处不再是合法的 JSON。";
    fix "Build the body with a JSON library; RFC 8259 knows no comments, trailing commas or single quotes.", "请用 JSON 库生成请求体；RFC 8259 不允许注释、尾随逗号或单引号。";

    BodyTrailingData "body_trailing_data" 400 Retry::Never;
    title "Data after the JSON value", "JSON 之后还有数据";
    detail "The body holds a whole JSON value, and then more, at line {line|?}, column {column|?}.", "请求体在一个完整的 JSON 值之后还有内容，位于第 {line|?} 行第 {column|?} 列。";
    fix "Send exactly one JSON object; use the batch call for several records.", "请只发送一个 JSON 对象；多条记录请用批量接口。";

    BodyTooDeep "body_too_deep" 400 Retry::Never;
    title "Body nested too deeply", "请求体嵌套过深";
    detail "Objects and arrays are nested more than {limit|the allowed number of} levels deep.", "对象与数组的嵌套超过 {limit|允许的} 层。";
    fix "Send the documented structure, which needs fewer than six levels.", "请按文档的结构发送，其嵌套不到六层。";

    ObjectTooLarge "object_too_large" 400 Retry::Never;
    title "Object has too many members", "对象成员过多";
    detail "An object has more than {limit|the allowed number of} members.", "某个对象的成员超过 {limit|允许的} 个。";
    fix "Send only the documented members.", "请只发送文档中列出的成员。";

    DuplicateJsonKey "duplicate_json_key" 400 Retry::Never;
    title "Member given twice", "成员重复";
    detail "The same member stands twice in one object, so that two readers could read two requests.", "同一对象中同一成员出现两次，不同的读者可能读出不同的请求。";
    fix "Give every member once.", "每个成员只给一次。";

    // ---- the members of a body

    SeveralFaults "several_faults" 422 Retry::Never;
    title "Several faults", "存在多处错误";
    detail "The request has at least {count|two} faults of different kinds; errors lists them.", "请求至少有 {count|两} 处不同的错误；errors 中逐一列出。";
    fix "Correct every fault listed in errors, then send the request again.", "请逐一改正 errors 中列出的错误后重新发送。";

    UnknownField "unknown_field" 422 Retry::Never;
    title "Unknown member", "未知成员";
    detail "This member is not known here; known are: {known|those in the OpenAPI document}.", "此处没有这个成员；已知的成员是：{known|见 OpenAPI 文档}。";
    fix "Correct its spelling or leave it out.", "请改正拼写或去掉该成员。";

    FieldMissing "field_missing" 422 Retry::Never;
    title "Required member missing", "缺少必填成员";
    detail "A required member is missing; it is {expected|described in the OpenAPI document}.", "缺少必填成员；它应为{expected|OpenAPI 文档所述的值}。";
    fix "Add the member.", "请补上该成员。";

    FieldType "field_type" 422 Retry::Never;
    title "Wrong type", "类型错误";
    detail "The value is not {expected|of the documented type}.", "该值不是{expected|文档规定的类型}。";
    fix "Send {expected|the documented type}. A member without a value is left out, not sent as null.", "请发送{expected|文档规定的类型}。没有值的成员应省略，不要发送 null。";

    FieldOutOfRange "field_out_of_range" 422 Retry::Never;
    title "Number out of range", "数值超出范围";
    detail "The number is not between {min|the lowest} and {max|the highest allowed value}.", "该数不在 {min|最小值} 与 {max|最大允许值} 之间。";
    fix "Send a whole number within these bounds, in plain digits.", "请发送该范围内的整数，直接用数字书写。";

    StringEmpty "string_empty" 422 Retry::Never;
    title "Empty string", "空字符串";
    detail "The string is empty.", "该字符串为空。";
    fix "Leave the member out when there is nothing to say.", "没有内容时请省略该成员。";

    StringTooLong "string_too_long" 422 Retry::Never;
    title "String too long", "字符串过长";
    detail "The string has more than {limit|the allowed number of} characters.", "该字符串超过 {limit|允许的} 个字符。";
    fix "Shorten it to at most {limit|the allowed number of} characters.", "请缩短到不超过 {limit|允许的} 个字符。";

    StringBadCharacters "string_bad_characters" 422 Retry::Never;
    title "Characters not allowed", "含有不允许的字符";
    detail "The string holds control characters, or marks that change the direction of the text.", "该字符串含有控制字符，或改变文字方向的标记。";
    fix "Remove them; what a court reads must look like what was stored.", "请去掉这些字符；法庭看到的文字必须与存储的一致。";

    TimeMalformed "time_malformed" 422 Retry::Never;
    title "Time malformed", "时间格式错误";
    detail "The value is not a date and time of RFC 3339 with an offset.", "该值不是带时区偏移的 RFC 3339 日期时间。";
    fix "Write it like 2026-11-22T08:00:00.000Z.", "请写成 2026-11-22T08:00:00.000Z 的形式。";

    MediaTypeInvalid "media_type_invalid" 422 Retry::Never;
    title "Media type invalid", "媒体类型无效";
    detail "The value is not a lower-case media type of at most {limit|the allowed number of} characters without parameters (RFC 6838).", "该值不是不带参数、全部小写、不超过 {limit|允许的} 个字符的媒体类型（RFC 6838）。";
    fix "Write it like application/pdf, or leave it out.", "请写成 application/pdf 的形式，或省略。";

    IdMalformed "id_malformed" 400 Retry::Never;
    title "Id malformed", "编号格式错误";
    detail "The value is not an id of the form {expected|prefix_ and 39 characters}.", "该值不是{expected|前缀_加 39 个字符}形式的编号。";
    fix "Use the id exactly as an earlier answer gave it.", "请原样使用先前响应中给出的编号。";

    // ---- digests

    DigestMissing "digest_missing" 422 Retry::Never;
    title "No digest given", "没有给出哈希值";
    detail "digests must hold at least one of {known|the known algorithms}.", "digests 至少要包含{known|已知算法}中的一个。";
    fix "Hash the file and send, for instance, digests.sha256; two of different families are better.", "请计算文件的哈希并发送，例如 digests.sha256；最好给出两种不同体系的哈希。";

    DigestAlgorithmUnknown "digest_algorithm_unknown" 422 Retry::Never;
    title "Digest algorithm unknown", "未知的哈希算法";
    detail "This algorithm is not known here; known are: {known|sha256, sha3-256, sm3}.", "此处不支持该算法；支持：{known|sha256、sha3-256、sm3}。";
    fix "Hash the file with one of them, spelled exactly so.", "请用其中之一计算文件哈希，名称须完全一致。";

    DigestBadLength "digest_bad_length" 422 Retry::Never;
    title "Digest has the wrong length", "哈希值长度错误";
    detail "The digest is not 64 hexadecimal characters long.", "哈希值不是 64 个十六进制字符。";
    fix "Send the whole 32-byte digest as 64 lower-case hexadecimal characters.", "请把完整的 32 字节哈希值写成 64 个小写十六进制字符。";

    DigestNotHex "digest_not_hex" 422 Retry::Never;
    title "Digest is not hexadecimal", "哈希值不是十六进制";
    detail "The digest has characters other than 0-9 and a-f.", "哈希值含有 0-9 与 a-f 以外的字符。";
    fix "Send it in hexadecimal, without prefix or spaces; Base64 is not read.", "请使用十六进制，不带前缀和空格；不接受 Base64。";

    DigestUpperCase "digest_upper_case" 422 Retry::Never;
    title "Digest is in upper case", "哈希值含大写字母";
    detail "The digest has upper-case letters; one digest has one spelling here.", "哈希值含有大写字母；在本系统中一个哈希值只有一种写法。";
    fix "Send it in lower case.", "请改为小写。";

    // ---- batches

    BatchEmpty "batch_empty" 422 Retry::Never;
    title "Batch is empty", "批次为空";
    detail "items is an empty list.", "items 是空列表。";
    fix "Send at least one item.", "请至少发送一项。";

    BatchTooLarge "batch_too_large" 422 Retry::Never;
    title "Batch too large", "批次过大";
    detail "items holds more than {limit|the allowed number of} items.", "items 超过 {limit|允许的} 项。";
    fix "Split it into batches of at most {limit|the allowed number of} items.", "请拆成每批不超过 {limit|允许的} 项。";

    // ---- the query

    QueryParameterUnknown "query_parameter_unknown" 400 Retry::Never;
    title "Query parameter unknown", "未知的查询参数";
    detail "This parameter is not known here; known are: {known|none}.", "此处没有这个查询参数；已知的参数是：{known|无}。";
    fix "Correct its spelling or leave it out.", "请改正拼写或去掉该参数。";

    QueryParameterInvalid "query_parameter_invalid" 400 Retry::Never;
    title "Query parameter invalid", "查询参数无效";
    detail "The value is not {expected|of the documented form}.", "该值不是{expected|文档规定的形式}。";
    fix "Send {expected|the documented form}, percent-encoded as UTF-8.", "请发送{expected|文档规定的形式}，并按 UTF-8 做百分号编码。";

    QueryParameterRepeated "query_parameter_repeated" 400 Retry::Never;
    title "Query parameter given twice", "查询参数重复";
    detail "The parameter is given more than once.", "该查询参数出现不止一次。";
    fix "Give it once.", "请只给一次。";

    CursorInvalid "cursor_invalid" 400 Retry::Never;
    title "Cursor invalid", "游标无效";
    detail "The cursor is not one that an earlier page of this query gave.", "该游标不是本查询先前某页给出的。";
    fix "Use next_cursor of the last page unchanged and with the same filters, or start again without a cursor.", "请原样使用上一页的 next_cursor 并保持筛选条件不变，或去掉游标重新开始。";

    LimitOutOfRange "limit_out_of_range" 400 Retry::Never;
    title "Page size out of range", "每页条数超出范围";
    detail "limit is not a whole number from 1 to {limit|its highest value}.", "limit 不是 1 到 {limit|上限} 之间的整数。";
    fix "Ask for at most {limit|the highest value} items and follow next_cursor for more.", "请每页最多请求 {limit|上限} 条，用 next_cursor 取后续各页。";

    TimeRangeInvalid "time_range_invalid" 400 Retry::Never;
    title "Time range is empty", "时间范围为空";
    detail "from is not before to.", "from 不早于 to。";
    fix "Give an earlier from or a later to; from is included, to is not.", "请给出更早的 from 或更晚的 to；范围含 from，不含 to。";

    // ---- what is not there, or not yet

    EvidenceNotFound "evidence_not_found" 404 Retry::Never;
    title "No such evidence", "没有这条存证";
    detail "Your platform has no evidence of this id on this network.", "你的平台在本网络上没有该编号的存证。";
    fix "Check the id and the network of your key; evidence of other platforms is found by digest under /v1/verify.", "请检查编号及密钥所属网络；其他平台的存证可按哈希在 /v1/verify 查询。";

    OperationNotFound "operation_not_found" 404 Retry::Never;
    title "No such operation", "没有这个操作";
    detail "Your platform has no operation of this id on this network.", "你的平台在本网络上没有该编号的操作。";
    fix "Check the id and the network of your key.", "请检查编号及密钥所属网络。";

    CaseNotFound "case_not_found" 404 Retry::Never;
    title "No such case", "没有这个案件";
    detail "Your platform has no case of this id on this network.", "你的平台在本网络上没有该编号的案件。";
    fix "Check the id and the network of your key.", "请检查编号及密钥所属网络。";

    CheckpointNotFound "checkpoint_not_found" 404 Retry::AtWill;
    title "No checkpoint yet", "尚无检查点";
    detail "No checkpoint with a quorum of cosignatures covers what was asked for.", "还没有得到法定多数共同签名、且覆盖所请求内容的检查点。";
    fix "Ask again in a second; when it lasts, look at /health/ready.", "请一秒后再查；若持续如此，请查看 /health/ready。";

    BlockNotFound "block_not_found" 404 Retry::AtWill;
    title "No such block", "没有这个区块";
    detail "No block of this height was decided under a checkpoint with a quorum of cosignatures.", "没有该高度、且已被法定多数共同签名的检查点覆盖的区块。";
    fix "Read the newest height at /v1/network; decided blocks begin with 1.", "请从 /v1/network 读取最新高度；已确定的区块从 1 开始。";

    EntryNotFound "entry_not_found" 404 Retry::Never;
    title "No such entry", "没有这个条目";
    detail "No entry under a checkpoint with a quorum of cosignatures has this id.", "在法定多数共同签名的检查点之下，没有该编号的条目。";
    fix "Check the id: records under /v1/verify and blocks under /v1/blocks name it as entry_id.", "请检查编号：/v1/verify 的记录和 /v1/blocks 的区块以 entry_id 给出它。";

    PolicyNotFound "policy_not_found" 404 Retry::AtWill;
    title "No such policy file", "没有这个策略文件";
    detail "No policy file begins with this tree size.", "没有从该树大小开始生效的策略文件。";
    fix "Take first_size from the policies at /v1/network.", "请从 /v1/network 的 policies 中取 first_size。";

    TileNotFound "tile_not_found" 404 Retry::Never;
    title "No such tile", "没有这个分片";
    detail "The path is not that of a tile or entry bundle inside the current tree.", "该路径不是当前树内的分片或条目包。";
    fix "Read /log/checkpoint for the tree size and build the path as C2SP tlog-tiles says.", "请从 /log/checkpoint 读取树大小，并按 C2SP tlog-tiles 规范构造路径。";

    ErrorPageNotFound "error_page_not_found" 404 Retry::Never;
    title "No such problem code", "没有这个错误码";
    detail "No problem code has this name.", "没有该名称的错误码。";
    fix "See /errors for the list.", "完整列表见 /errors。";

    NotCommittedYet "not_committed_yet" 409 Retry::After(1);
    title "Not committed yet", "尚未上链";
    detail "The operation is accepted, and its proof exists once it is committed.", "操作已受理，上链之后才有证明。";
    fix "Ask again shortly, or send Prefer: wait=10 with the write.", "请稍后再查，或在写入时发送 Prefer: wait=10。";

    WebhookEndpointNotFound "webhook_endpoint_not_found" 404 Retry::Never;
    title "No such endpoint", "没有这个接收端";
    detail "Your platform has no webhook endpoint of this id on this network.", "你的平台在本网络上没有该编号的 Webhook 接收端。";
    fix "Check the id, or list your endpoints.", "请检查编号，或列出你的接收端。";

    WebhookDeliveryNotFound "webhook_delivery_not_found" 404 Retry::Never;
    title "No such delivery", "没有这次投递";
    detail "Your platform has no webhook delivery of this id; the log of a delivery is kept for 30 days after it ended.", "你的平台没有该编号的 Webhook 投递；投递结束后，其日志保留 30 天。";
    fix "Check the id, or list your deliveries.", "请检查编号，或列出你的投递。";

    WebhookEndpointDisabled "webhook_endpoint_disabled" 409 Retry::Never;
    title "Endpoint disabled", "接收端已停用";
    detail "Nothing is sent to an endpoint that is disabled.", "不会向已停用的接收端发送任何消息。";
    fix "Enable it first: PATCH the endpoint with enabled true.", "请先启用：以 enabled 为 true 对该接收端执行 PATCH。";

    WebhookEndpointsTooMany "webhook_endpoints_too_many" 409 Retry::Never;
    title "Too many endpoints", "接收端过多";
    detail "Your platform has as many webhook endpoints as it may have: {limit|the allowed number}.", "你的平台的 Webhook 接收端数已达上限：{limit|允许的数目}。";
    fix "Delete an endpoint that is no longer needed, or change one instead.", "请删除不再需要的接收端，或改为修改现有接收端。";

    WebhookUrlRefused "webhook_url_refused" 422 Retry::Never;
    title "Not an address for webhooks", "该地址不能接收 Webhook";
    detail "Messages are not sent to this URL: {reason|it is not a public https address}.", "不会向此 URL 发送消息：{reason|它不是公网 https 地址}。";
    fix "Give an https URL whose host is a public name, without user, password and fragment.", "请提供主机为公共域名的 https URL，不含用户名、密码和片段。";

    WebhookEventUnknown "webhook_event_unknown" 422 Retry::Never;
    title "No such event", "没有这种事件";
    detail "The filter names an event that does not exist; there are {known|those of the OpenAPI document}.", "过滤条件中有不存在的事件；可用的事件是{known|OpenAPI 文档所列的事件}。";
    fix "Name events of this list, each at most once, or leave the filter out for all of them.", "请使用上述事件名，每个至多一次；若要接收全部事件，请省略该字段。";

    WebhookEventsEmpty "webhook_events_empty" 422 Retry::Never;
    title "A filter that lets nothing through", "过滤条件为空";
    detail "The list of events has no item.", "事件列表中没有任何项。";
    fix "Name at least one event, or leave the member out for all of them.", "请至少列出一个事件；若要接收全部事件，请省略该字段。";

    WebhookStateUnknown "webhook_state_unknown" 422 Retry::Never;
    title "No state of an ended delivery", "不是已结束投递的状态";
    detail "Only deliveries that are delivered or dead can be chosen for sending again.", "只能选择状态为 delivered 或 dead 的投递重新发送。";
    fix "Send delivered or dead, or leave the member out for both.", "请填写 delivered 或 dead；若两者都要，请省略该字段。";

    PredecessorNotCommitted "predecessor_not_committed" 409 Retry::After(1);
    title "What this needs is not committed yet", "所依赖的内容尚未上链";
    detail "The resource named at the pointer is accepted but not committed; this request was not taken up and its idempotency key is still free.", "所指的资源已受理但尚未上链；本请求未被受理，其幂等键仍可使用。";
    fix "Send the same request again once that resource is committed.", "待该资源上链后，请原样重发本请求。";

    OperationRejected "operation_rejected" 409 Retry::Never;
    title "The operation was rejected", "操作已被拒绝";
    detail "The operation ended as a rejection, so there is neither an entry nor a receipt.", "该操作以拒绝告终，因此没有条目，也没有回执。";
    fix "Read rejection.code of the operation, correct the cause, and send a new request under a new idempotency key.", "请查看操作的 rejection.code，消除原因后用新的幂等键发送新请求。";

    // ---- files

    MultipartInvalid "multipart_invalid" 400 Retry::Never;
    title "Multipart body invalid", "multipart 请求体无效";
    detail "The body is not well-formed multipart/form-data with the boundary that Content-Type names.", "请求体不是以 Content-Type 所述边界书写的合法 multipart/form-data。";
    fix "Let an HTTP library build the form, and do not set Content-Type by hand.", "请由 HTTP 库生成表单，不要手工设置 Content-Type。";

    PartUnknown "part_unknown" 422 Retry::Never;
    title "Unknown form part", "未知的表单部分";
    detail "The form has a part that is not known here; known are: {known|metadata, file}.", "表单含有未知的部分；已知的部分是：{known|metadata、file}。";
    fix "Send the descriptive members as JSON in the part metadata, and the file in the part file.", "请把描述性成员以 JSON 放在 metadata 部分，文件放在 file 部分。";

    PartRepeated "part_repeated" 422 Retry::Never;
    title "Form part given twice", "表单部分重复";
    detail "A part of the form is given more than once.", "表单的某一部分出现不止一次。";
    fix "Send one file a request.", "每个请求只发送一个文件。";

    PartOutOfOrder "part_out_of_order" 422 Retry::Never;
    title "Metadata after the file", "元数据排在文件之后";
    detail "The part metadata comes after the part file.", "metadata 部分排在 file 部分之后。";
    fix "Put metadata first, so that a fault in it is found before the file is sent.", "请把 metadata 放在最前，以便在传输文件之前发现其中的错误。";

    FilePartMissing "file_part_missing" 422 Retry::Never;
    title "File part missing", "缺少文件部分";
    detail "The form has no part named file.", "表单没有名为 file 的部分。";
    fix "Send the file in a part named file, or use POST /v1/evidence with its digests.", "请把文件放在名为 file 的部分，或改用 POST /v1/evidence 发送其哈希值。";

    FileTooLarge "file_too_large" 413 Retry::Never;
    title "File too large", "文件过大";
    detail "The file is larger than {limit|the allowed number of} bytes.", "文件超过 {limit|允许的} 字节。";
    fix "Hash the file yourself and send its digests to POST /v1/evidence; that has no size limit.", "请自行计算哈希并发送到 POST /v1/evidence；该接口不限文件大小。";

    FileDigestMismatch "file_digest_mismatch" 422 Retry::Never;
    title "File does not match its digest", "文件与哈希值不符";
    detail "The digest computed from the file is not the one given in metadata; nothing was stored.", "由文件计算的哈希与 metadata 中给出的不一致；没有存储任何内容。";
    fix "Check that the right file was sent whole, and hash the same bytes.", "请确认发送的是完整且正确的文件，并对同样的字节计算哈希。";

    FileSizeMismatch "file_size_mismatch" 422 Retry::Never;
    title "File does not match its size", "文件与大小不符";
    detail "The file does not have the size given in metadata; nothing was stored.", "文件大小与 metadata 中给出的不一致；没有存储任何内容。";
    fix "Send the file whole, or leave size out.", "请发送完整的文件，或省略 size。";

    RetentionUnavailable "retention_unavailable" 422 Retry::Never;
    title "Originals are not kept here", "此处不保留原件";
    detail "retain is true, but this deployment has no object store.", "retain 为 true，但本部署没有配置对象存储。";
    fix "Leave retain out and keep the original yourself, or ask the operator to configure an object store.", "请省略 retain 并自行保管原件，或请运营方配置对象存储。";

    // ---- limits

    RateLimited "rate_limited" 429 Retry::After(1);
    title "Too many requests", "请求过于频繁";
    detail "More requests arrived than the limit in the RateLimit-Policy header allows.", "请求数超过 RateLimit-Policy 响应头给出的限额。";
    fix "Wait as long as Retry-After says; the batch call carries many records in one request.", "请按 Retry-After 等待；批量接口一次可发送多条记录。";

    QuotaExceeded "quota_exceeded" 429 Retry::After(3600);
    title "Quota used up", "配额已用完";
    detail "Your platform has used its quota for the current period.", "你的平台已用完本周期的配额。";
    fix "Wait for the next period, or ask the operator for a larger quota.", "请等待下一周期，或向运营方申请更大的配额。";

    // ---- a part of the service is away; nothing was accepted

    QueueFull "queue_full" 503 Retry::After(2);
    title "Queue full", "队列已满";
    detail "Requests arrive faster than the ledger takes them; this one was not accepted.", "请求的到达快于账本的处理；本请求未被受理。";
    fix "Send it again after Retry-After, with the same idempotency key.", "请在 Retry-After 之后用同一幂等键重发。";

    QueueUnavailable "queue_unavailable" 503 Retry::After(5);
    title "Queue unavailable", "队列不可用";
    detail "The queue cannot be written at present; the request was not accepted.", "队列目前无法写入；请求未被受理。";
    fix "Send it again after Retry-After, with the same idempotency key.", "请在 Retry-After 之后用同一幂等键重发。";

    LedgerUnavailable "ledger_unavailable" 503 Retry::After(5);
    title "Ledger unavailable", "账本不可用";
    detail "No node of the ledger answers at present.", "目前没有账本节点应答。";
    fix "Ask again after Retry-After; receipts that you hold can be verified offline meanwhile.", "请在 Retry-After 之后重试；其间已持有的回执仍可离线核验。";

    IndexRebuilding "index_rebuilding" 503 Retry::After(10);
    title "Index being rebuilt", "索引正在重建";
    detail "The node is rebuilding its index, and could not tell a missing record from one not indexed yet.", "节点正在重建索引，尚不能区分“没有记录”与“尚未编入索引”。";
    fix "Ask again after Retry-After.", "请在 Retry-After 之后重试。";

    DatabaseUnavailable "database_unavailable" 503 Retry::After(5);
    title "Database unavailable", "数据库不可用";
    detail "The database does not answer at present.", "数据库目前没有应答。";
    fix "Ask again after Retry-After; records under /v1/verify and /log do not need it.", "请在 Retry-After 之后重试；/v1/verify 与 /log 不依赖数据库。";

    KeyProviderUnavailable "key_provider_unavailable" 503 Retry::After(5);
    title "Key provider unavailable", "密钥服务不可用";
    detail "The private part cannot be sealed or opened, because the key provider does not answer.", "密钥服务没有应答，私密部分无法加密或解密。";
    fix "Send the request again after Retry-After, with the same idempotency key.", "请在 Retry-After 之后用同一幂等键重发。";

    ObjectStoreUnavailable "object_store_unavailable" 503 Retry::After(5);
    title "Object store unavailable", "对象存储不可用";
    detail "The original cannot be kept at present, so the request was not accepted.", "目前无法保存原件，因此请求未被受理。";
    fix "Send it again after Retry-After, or without retain.", "请在 Retry-After 之后重发，或去掉 retain。";

    DiskFull "disk_full" 503 Retry::After(30);
    title "Disk full", "磁盘已满";
    detail "The service has no room to store the request durably, so it was not accepted.", "服务没有空间可靠地保存请求，因此未予受理。";
    fix "Send it again after Retry-After; the operator has to free or add space.", "请在 Retry-After 之后重发；需由运营方清理或扩充空间。";

    Overloaded "overloaded" 503 Retry::After(2);
    title "Too busy", "服务繁忙";
    detail "As many requests are under way as this server holds at a time.", "正在处理的请求已达到本服务器的上限。";
    fix "Send the request again after Retry-After, with the same idempotency key.", "请在 Retry-After 之后用同一幂等键重发。";

    ShuttingDown "shutting_down" 503 Retry::After(2);
    title "Shutting down", "服务正在停止";
    detail "This server is finishing what it has begun and takes nothing new.", "本服务器正在完成已开始的请求，不再接受新请求。";
    fix "Send the request again after Retry-After, with the same idempotency key; another server will take it.", "请在 Retry-After 之后用同一幂等键重发，将由其他服务器处理。";

    // ---- something of ours is broken

    StoredDataDamaged "stored_data_damaged" 500 Retry::Never;
    title "Stored data failed its check", "存储数据未通过校验";
    detail "What is stored does not match the root that was signed; it is refused rather than served.", "存储内容与已签名的根不一致；系统拒绝提供，而不是照发。";
    fix "Ask another member's node; tell the operator the request_id, so that chopmark fsck is run.", "请改用其他成员的节点；并把 request_id 告知运营方，以便运行 chopmark fsck。";

    InternalError "internal_error" 500 Retry::AtWill;
    title "Internal error", "内部错误";
    detail "The service failed in a way that it should not.", "服务发生了不应出现的故障。";
    fix "Send the request again with the same idempotency key; when it persists, tell the operator the request_id.", "请用同一幂等键重发；若持续出现，请把 request_id 告知运营方。";

    // ---- rejections: how an operation ended on the ledger (also idempotency_conflict and tenant_suspended)

    TenantUnknown "tenant_unknown" 409 Retry::Never;
    title "Platform not on the ledger", "平台方未登记于账本";
    detail "No tenant.set entry names the platform of this operation.", "账本上没有登记该操作所属平台方的 tenant.set 条目。";
    fix "Have the platform registered by the operator, then send a new request under a new idempotency key.", "请由运营方登记该平台，然后用新的幂等键发送新请求。";

    CaseUnknown "case_unknown" 409 Retry::Never;
    title "Case not on the ledger", "账本上没有该案件";
    detail "When the ledger judged the operation, no case.open entry of your platform named this case.", "账本裁定该操作时，没有你的平台的 case.open 条目对应该案件。";
    fix "Wait until the case is committed, then send a new request under a new idempotency key.", "请等案件上链后，用新的幂等键发送新请求。";

    EvidenceUnknown "evidence_unknown" 409 Retry::Never;
    title "Evidence not on the ledger", "账本上没有该存证";
    detail "When the ledger judged the operation, no evidence entry of your platform had this id.", "账本裁定该操作时，没有你的平台的、该编号的 evidence 条目。";
    fix "Wait until the evidence is committed, then send a new request under a new idempotency key.", "请等存证上链后，用新的幂等键发送新请求。";

    EvidenceInCase "evidence_in_case" 409 Retry::Never;
    title "Evidence is in the case already", "存证已在该案件中";
    detail "The case already has a link to this evidence, and a link is added once.", "该案件已链接此存证，每条存证只能加入一次。";
    fix "Nothing has to be done: read the case to see its position.", "无需处理：读取案件即可看到其位置。";

    ChangePending "change_pending" 409 Retry::Never;
    title "Another change is under way", "另一项变更正在进行";
    detail "A change of the member set waits for its height; until then no other is taken.", "成员集的一项变更正在等待其生效高度，在此之前不接受另一项。";
    fix "Wait until the earlier change is in force, then have this one approved against the new member set.", "请等先前的变更生效后，针对新的成员集重新批准本变更。";

    TenantSignatureMissing "tenant_signature_missing" 409 Retry::Never;
    title "Platform's own signature is missing", "缺少平台方自己的签名";
    detail "The platform registered a key of its own, and this operation does not carry its signature.", "该平台方登记了自己的密钥，而该操作没有其签名。";
    fix "Sign the operation with the registered key, and send it under a new idempotency key.", "请用登记的密钥对操作签名，并用新的幂等键发送。";

    PolicyVersion "policy_version" 409 Retry::Never;
    title "Policy version does not follow", "策略版本号不连续";
    detail "A new policy has the version of the current one plus one.", "新策略的版本号须为现行版本号加一。";
    fix "Read the current policy, number the new one after it, and have it approved anew.", "请读取现行策略，按顺序编号后重新批准。";

    DigestKnown "digest_known" 409 Retry::Never;
    title "Digest already recorded for this evidence", "该存证已有此哈希";
    detail "The evidence already carries a digest of this algorithm, and a digest is added once.", "该存证已带有此算法的哈希，每种算法只能添加一次。";
    fix "Nothing has to be done if the digests are equal; record the file anew if they are not.", "若哈希相同则无需处理；若不同，请把文件作为新的存证登记。";

    RedigestMismatch "redigest_mismatch" 409 Retry::Never;
    title "Digests do not match the evidence", "哈希与存证不符";
    detail "The digest that should prove which file is meant is not the one in the evidence entry.", "用来指明文件的哈希，与存证条目中的不一致。";
    fix "Hash the original file again and name the evidence that records it.", "请重新计算原始文件的哈希，并指明记录它的那条存证。";

    ApprovalInsufficient "approval_insufficient" 409 Retry::Never;
    title "Too few approvals", "批准数不足";
    detail "The change does not carry valid approvals of a quorum of members.", "该变更没有足够法定多数成员的有效批准。";
    fix "Collect the approvals of a quorum of the current members over this very change, and send it anew.", "请收集当前成员法定多数对该变更的批准后重新提交。";

    ApprovalExpired "approval_expired" 409 Retry::Never;
    title "Approvals expired", "批准已过期";
    detail "The expiry height of the approvals passed before the change reached a block.", "变更进入区块之前，批准的失效高度已过。";
    fix "Have the change approved again with a later expiry height.", "请以更晚的失效高度重新批准该变更。";

    StateReplaced "state_replaced" 409 Retry::Never;
    title "Approved against an older state", "所依据的状态已被替换";
    detail "The approvals name a state that another change has replaced since.", "批准所依据的状态此后已被另一变更替换。";
    fix "Read the current state, and have the change approved against it.", "请读取当前状态，并据此重新批准变更。";

    QuorumLost "quorum_lost" 409 Retry::Never;
    title "Change would lose the quorum", "该变更会使法定多数丧失";
    detail "After the change too few members could sign for the network to go on.", "变更之后，能够签名的成员将不足以使网络继续运行。";
    fix "Add or restore members first, or change fewer at a time.", "请先增加或恢复成员，或减少一次变更的成员数。";

    OperationExpired "operation_expired" 409 Retry::Never;
    title "Operation expired", "操作已过期";
    detail "The operation reached the ledger after the height or time up to which it was valid.", "操作到达账本时，已超过其有效的高度或时间。";
    fix "Send a new request under a new idempotency key.", "请用新的幂等键发送新请求。";
}
