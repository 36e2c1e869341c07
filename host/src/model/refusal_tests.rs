//! Refusals as providers and servers send them, and what each means.

use super::*;

/// Server, status, body, what it means.
const REFUSALS: &[(&str, u16, &str, Reason)] = &[
    // A picture or a document.
    (
        "Anthropic, a picture",
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: 6000000 bytes > 5242880 bytes"}}"#,
        Reason::Malformed,
    ),
    (
        "Anthropic, a document",
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"A maximum of 100 PDF pages may be provided."}}"#,
        Reason::Malformed,
    ),
    (
        "OpenRouter, a model without pictures",
        404,
        r#"{"error":{"message":"No endpoints found that support image input","code":404}}"#,
        Reason::Malformed,
    ),
    (
        "Ollama, a model without pictures",
        500,
        r#"{"error":{"message":"this model is missing data required for image input","type":"api_error","param":null,"code":null}}"#,
        Reason::Malformed,
    ),
    // The conversation is too long.
    (
        "Anthropic",
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
        Reason::Overflow,
    ),
    (
        "Anthropic",
        413,
        r#"{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#,
        Reason::Overflow,
    ),
    (
        "OpenAI",
        400,
        r#"{"error":{"message":"Your input exceeds the context window of this model. Please adjust your input and try again.","type":"invalid_request_error","param":"input","code":"context_length_exceeded"}}"#,
        Reason::Overflow,
    ),
    (
        "OpenAI, by its code alone",
        400,
        r#"{"error":{"message":"Please reduce the length of the messages or completion.","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
        Reason::Overflow,
    ),
    (
        "OpenAI, larger than a minute allows",
        429,
        r#"{"error":{"message":"Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 37000. The input or output tokens must be reduced in order to run successfully.","type":"tokens","code":"rate_limit_exceeded"}}"#,
        Reason::Overflow,
    ),
    (
        "Azure",
        400,
        r#"{"error":{"message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens. Please reduce the length of the messages.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
        Reason::Overflow,
    ),
    (
        "Gemini",
        400,
        r#"[{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}]"#,
        Reason::Overflow,
    ),
    (
        "Mistral",
        400,
        r#"{"object":"error","message":"Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length","type":"invalid_request_prompt","code":"3051"}"#,
        Reason::Overflow,
    ),
    (
        "DeepSeek",
        400,
        r#"{"error":{"message":"This model's maximum context length is 65536 tokens. However, you requested 80000 tokens (71808 in the messages, 8192 in the completion). Please reduce the length of the messages or completion.","type":"invalid_request_error","param":null,"code":"invalid_request_error"}}"#,
        Reason::Overflow,
    ),
    (
        "Kimi",
        400,
        r#"{"error":{"message":"Invalid request: Your request exceeded model token limit: 131072","type":"invalid_request_error"}}"#,
        Reason::Overflow,
    ),
    (
        "Groq",
        413,
        r#"{"error":{"message":"Request too large for model `llama` in organization `o` on tokens per minute (TPM): Limit 6000, Requested 9000, please reduce your message size and try again.","type":"tokens","code":"rate_limit_exceeded"}}"#,
        Reason::Overflow,
    ),
    (
        "Together",
        422,
        r#"{"error":{"message":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000 `inputs` tokens and 512 `max_new_tokens`","type":"invalid_request_error"}}"#,
        Reason::Overflow,
    ),
    (
        "OpenRouter",
        400,
        r#"{"error":{"message":"This endpoint's maximum context length is 131072 tokens. However, you requested about 140000 tokens (131808 of text input, 8192 in the output). Please reduce the length of either one.","code":400}}"#,
        Reason::Overflow,
    ),
    (
        "OpenRouter, quoting",
        400,
        r#"{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":"{\"error\":{\"message\":\"prompt is too long\"}}","provider_name":"x"}}}"#,
        Reason::Overflow,
    ),
    (
        "llama.cpp",
        400,
        r#"{"error":{"code":400,"message":"request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it","type":"exceed_context_size_error","n_ctx":8192}}"#,
        Reason::Overflow,
    ),
    (
        "llama.cpp, as a server's error",
        500,
        r#"{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}"#,
        Reason::Overflow,
    ),
    (
        "vLLM",
        400,
        r#"{"object":"error","message":"You passed 8193 input tokens and requested 0 output tokens. However, the model's context length is only 8192 tokens, resulting in a maximum input length of 8192 tokens.","type":"BadRequestError","code":400}"#,
        Reason::Overflow,
    ),
    (
        "LM Studio",
        400,
        r#"{"error":"Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough."}"#,
        Reason::Overflow,
    ),
    (
        "Ollama",
        500,
        r#"{"error":{"message":"the input length exceeds the context length","type":"api_error"}}"#,
        Reason::Overflow,
    ),
    ("Bedrock", 400, r#"{"message":"Input is too long for requested model."}"#, Reason::Overflow),
    (
        "DashScope",
        400,
        r#"{"error":{"code":"invalid_parameter_error","message":"Range of input length should be [1, 30720]","type":"invalid_request_error"}}"#,
        Reason::Overflow,
    ),
    (
        "a gateway with another status",
        404,
        r#"{"detail":"no deployment fits: context window exceeded"}"#,
        Reason::Overflow,
    ),
    // The answer's limit is too large.
    (
        "vLLM",
        400,
        r#"{"object":"error","message":"'max_tokens' is too large: 8192. This model's maximum context length is 8192 tokens and your request has 1500 input tokens.","code":400}"#,
        Reason::AnswerRoom(Some(6692)),
    ),
    (
        "Anthropic",
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for claude-3-5-sonnet"}}"#,
        Reason::MaxTokens(Some(8192)),
    ),
    (
        "Anthropic, with the input",
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length or `max_tokens` and try again"}}"#,
        Reason::AnswerRoom(Some(11_760)),
    ),
    (
        "OpenAI",
        400,
        r#"{"error":{"message":"max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000.","type":"invalid_request_error","param":"max_tokens","code":null}}"#,
        Reason::MaxTokens(Some(16_384)),
    ),
    (
        "OpenAI, with the input",
        400,
        r#"{"error":{"message":"This model's maximum context length is 16385 tokens. However, you requested 17000 tokens (1000 in the messages, 16000 in the completion). Please reduce the length of the messages or completion.","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
        Reason::AnswerRoom(Some(15_385)),
    ),
    (
        "Groq",
        400,
        r#"{"error":{"message":"`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the `context_window` for this model","type":"invalid_request_error"}}"#,
        Reason::MaxTokens(Some(8192)),
    ),
    (
        "DeepSeek",
        400,
        r#"{"error":{"message":"Invalid max_tokens value, the valid range of max_tokens is [1, 8192]","type":"invalid_request_error"}}"#,
        Reason::MaxTokens(Some(8192)),
    ),
    (
        "Together",
        422,
        r#"{"error":{"message":"`inputs` tokens + `max_new_tokens` must be <= 32769. Given: 30000 `inputs` tokens and 8192 `max_new_tokens`"}}"#,
        Reason::AnswerRoom(Some(2769)),
    ),
    (
        "Gemini",
        400,
        r#"[{"error":{"code":400,"message":"Unable to submit request because it has a maxOutputTokens value of 100000 but the supported range is from 1 (inclusive) to 65537 (exclusive).","status":"INVALID_ARGUMENT"}}]"#,
        Reason::MaxTokens(Some(65_536)),
    ),
    (
        "Bedrock",
        400,
        r#"{"message":"The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens value that is lower than 4096."}"#,
        Reason::MaxTokens(Some(4095)),
    ),
    ("a server without numbers", 400, r#"{"error":"max_tokens is too large"}"#, Reason::MaxTokens(None)),
    // What the conversation lacks, or holds too much.
    (
        "DeepSeek, Kimi",
        400,
        r#"{"error":{"message":"The `reasoning_content` in the thinking mode must be passed back to the API.","type":"invalid_request_error"}}"#,
        Reason::Lacks(Lack::Thoughts),
    ),
    (
        "DeepSeek over the Messages wire",
        400,
        r#"{"error":{"message":"The `content[].thinking` in the thinking mode must be passed back to the API.","type":"invalid_request_error"}}"#,
        Reason::Lacks(Lack::Thoughts),
    ),
    (
        "Gemini",
        400,
        r#"[{"error":{"code":400,"message":"Function call is missing a thought_signature in functionCall parts.","status":"INVALID_ARGUMENT"}}]"#,
        Reason::Lacks(Lack::Signature),
    ),
    (
        "Mistral",
        400,
        r#"{"object":"error","message":"Unexpected role 'user' after role 'tool'","type":"invalid_request_message_order","code":"3230"}"#,
        Reason::Lacks(Lack::AnswerAfterTool),
    ),
    (
        "Anthropic",
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages.1.content.0: Invalid `signature` in `thinking` block"}}"#,
        Reason::ForeignThought,
    ),
    (
        "Groq",
        400,
        r#"{"error":{"message":"'messages.2' : for 'role:assistant' the following must be satisfied[('messages.2' : property 'reasoning_content' is unsupported)]","type":"invalid_request_error"}}"#,
        Reason::FieldUnknown(Field::OfAnswers),
    ),
    (
        "a strict server",
        422,
        r#"{"detail":[{"type":"extra_forbidden","loc":["body","messages",2,"assistant","extra_content"],"msg":"Extra inputs are not permitted"}]}"#,
        Reason::FieldUnknown(Field::OfAnswers),
    ),
    ("a server in trouble", 500, r#"{"error":"reasoning_content: internal error"}"#, Reason::Other),
    // Money and keys.
    (
        "Anthropic",
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."}}"#,
        Reason::Credit,
    ),
    (
        "OpenAI",
        429,
        r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
        Reason::Credit,
    ),
    (
        "DeepSeek",
        402,
        r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","code":"invalid_request_error"}}"#,
        Reason::Credit,
    ),
    (
        "OpenRouter",
        402,
        r#"{"error":{"message":"This request requires more credits, or fewer max_tokens. You requested up to 8192 tokens, but can only afford 4000.","code":402}}"#,
        Reason::Credit,
    ),
    (
        "Kimi",
        429,
        r#"{"error":{"message":"Your account is suspended, please check your plan and billing details","type":"exceeded_current_quota_error"}}"#,
        Reason::Credit,
    ),
    (
        "xAI",
        403,
        r#"{"code":"The caller does not have permission to execute the specified operation","error":"Your newly created teams doesn't have any credits yet."}"#,
        Reason::Credit,
    ),
    (
        "OpenAI",
        401,
        r#"{"error":{"message":"Incorrect API key provided: sk-x.","type":"invalid_request_error","code":"invalid_api_key"}}"#,
        Reason::Key,
    ),
    (
        "Gemini",
        400,
        r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}]"#,
        Reason::Key,
    ),
    (
        "Azure",
        401,
        r#"{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}"#,
        Reason::Key,
    ),
    ("a proxy", 401, "<html>401 Authorization Required</html>", Reason::Key),
    (
        "OpenAI",
        403,
        r#"{"error":{"message":"Country, region, or territory not supported","type":"request_forbidden"}}"#,
        Reason::Permission,
    ),
    ("Mistral", 401, r#"{"message":"Inactive subscription or usage limit reached"}"#, Reason::Credit),
    // The model.
    (
        "OpenAI",
        404,
        r#"{"error":{"message":"The model `gpt-9` does not exist or you do not have access to it.","type":"invalid_request_error","code":"model_not_found"}}"#,
        Reason::ModelUnknown,
    ),
    (
        "Ollama",
        404,
        r#"{"error":{"message":"model \"qwen9\" not found, try pulling it first","type":"api_error"}}"#,
        Reason::ModelUnknown,
    ),
    (
        "OpenRouter",
        400,
        r#"{"error":{"message":"foo/bar is not a valid model ID","code":400}}"#,
        Reason::ModelUnknown,
    ),
    (
        "DeepSeek",
        400,
        r#"{"error":{"message":"Model Not Exist","type":"invalid_request_error"}}"#,
        Reason::ModelUnknown,
    ),
    (
        "Mistral",
        400,
        r#"{"object":"error","message":"Invalid model: mistral-x","type":"invalid_model","code":"1500"}"#,
        Reason::ModelUnknown,
    ),
    ("Bedrock", 400, r#"{"message":"The provided model identifier is invalid."}"#, Reason::ModelUnknown),
    (
        "Azure",
        404,
        r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
        Reason::ModelUnknown,
    ),
    (
        "OpenAI, another path",
        404,
        r#"{"error":{"message":"Unrecognized request URL (POST: /v1/v1/chat/completions)","type":"invalid_request_error","code":"unknown_url"}}"#,
        Reason::ModelUnknown,
    ),
    // What passes.
    (
        "Anthropic",
        429,
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit of 8,000 output tokens per minute"}}"#,
        Reason::RateLimit,
    ),
    (
        "OpenAI",
        429,
        r#"{"error":{"message":"Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 2s.","type":"tokens","code":"rate_limit_exceeded"}}"#,
        Reason::RateLimit,
    ),
    (
        "Gemini",
        429,
        r#"[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"}]}}]"#,
        Reason::RateLimit,
    ),
    ("Bedrock", 429, r#"{"message":"Too many tokens, please wait before trying again."}"#, Reason::RateLimit),
    ("Mistral", 429, r#"{"message":"Requests rate limit exceeded"}"#, Reason::RateLimit),
    (
        "Kimi",
        429,
        r#"{"error":{"message":"The engine is currently overloaded, please try again later","type":"engine_overloaded_error"}}"#,
        Reason::Overloaded,
    ),
    (
        "Gemini",
        503,
        r#"[{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}]"#,
        Reason::Overloaded,
    ),
    (
        "llama.cpp",
        503,
        r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
        Reason::Overloaded,
    ),
    (
        "Anthropic",
        529,
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        Reason::Overloaded,
    ),
    (
        "OpenAI",
        500,
        r#"{"error":{"message":"The server had an error while processing your request.","type":"server_error"}}"#,
        Reason::Other,
    ),
    ("a proxy", 502, "<html>502 Bad Gateway</html>", Reason::Other),
    // What was written.
    (
        "Azure",
        400,
        r#"{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy.","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
        Reason::Filtered,
    ),
    (
        "DeepSeek",
        400,
        r#"{"error":{"message":"Content Exists Risk","type":"invalid_request_error"}}"#,
        Reason::Filtered,
    ),
    (
        "Kimi",
        400,
        r#"{"error":{"message":"The request was rejected because it was considered high risk","type":"content_filter"}}"#,
        Reason::Filtered,
    ),
    (
        "DashScope",
        400,
        r#"{"error":{"code":"data_inspection_failed","message":"Input data may contain inappropriate content."}}"#,
        Reason::Filtered,
    ),
    // Fields.
    (
        "OpenAI",
        400,
        r#"{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}"#,
        Reason::FieldUnknown(Field::MaxTokens),
    ),
    (
        "Azure",
        400,
        r#"{"error":{"message":"Unrecognized request argument supplied: stream_options"}}"#,
        Reason::FieldUnknown(Field::StreamOptions),
    ),
    (
        "Mistral",
        422,
        r#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted","input":{"include_usage":true}}]}"#,
        Reason::FieldUnknown(Field::StreamOptions),
    ),
    (
        "Mistral",
        422,
        r#"{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","max_completion_tokens"],"msg":"Extra inputs are not permitted","input":8192}]}}"#,
        Reason::FieldUnknown(Field::MaxCompletionTokens),
    ),
    (
        "Gemini",
        400,
        r#"[{"error":{"code":400,"message":"Invalid JSON payload received. Unknown name \"parallel_tool_calls\": Cannot find field.","status":"INVALID_ARGUMENT"}}]"#,
        Reason::FieldUnknown(Field::Other),
    ),
    // Everything else.
    (
        "Anthropic",
        400,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"tools.0.name: String should match pattern"}}"#,
        Reason::Malformed,
    ),
    (
        "Ollama",
        400,
        r#"{"error":{"message":"registry.ollama.ai/library/gemma:2b does not support tools","type":"api_error"}}"#,
        Reason::Malformed,
    ),
    (
        "a request that quotes the conversation",
        422,
        r#"{"detail":[{"type":"string_type","loc":["body","messages",0],"msg":"Input should be a valid string","input":"the context length of my credit balance"}]}"#,
        Reason::Malformed,
    ),
    ("nobody", 400, "", Reason::Malformed),
];

#[test]
fn each_refusal_is_understood() {
    let misread = REFUSALS.iter().filter_map(|(server, status, body, expected)| {
        let read = classify(*status, None, body.as_bytes()).reason;
        (read != *expected).then(|| format!("{server}, {status}: {read:?} instead of {expected:?}: {body}"))
    });
    let misread: Vec<_> = misread.collect();
    assert!(misread.is_empty(), "{misread:#?}");
}

#[test]
fn an_error_in_a_stream_is_read_by_its_code_and_its_words() {
    let read = |body: &str| in_answer(body.as_bytes()).map(|refusal| (refusal.reason, refusal.status));
    let table = [
        (
            r#"{"error":{"code":502,"message":"Provider disconnected"},"choices":[{"finish_reason":"error"}]}"#,
            Reason::Other,
            502,
        ),
        (r#"{"error":{"code":429,"message":"slow down"}}"#, Reason::RateLimit, 429),
        (r#"{"error":{"message":"Context size has been exceeded."}}"#, Reason::Overflow, 502),
        (r#"{"error":"n_keep: 9000 is more than the context length"}"#, Reason::Overflow, 502),
        (r#"{"object":"error","message":"bad schema","code":400}"#, Reason::Malformed, 400),
        (r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#, Reason::Overloaded, 529),
        (r#"[{"error":{"code":503,"status":"UNAVAILABLE","message":"later"}}]"#, Reason::Other, 503),
        ("\u{feff}{\"error\":\"quota\"}", Reason::Other, 502),
    ];
    for (body, reason, status) in table {
        assert_eq!(read(body), Some((reason, status)), "{body}");
    }
    for answer in [
        r#"{"choices":[],"error":null}"#,
        r#"{"choices":[{"delta":{"content":"x"}}],"error":{}}"#,
        r#"{"type":"ping"}"#,
        r#"{"error":""}"#,
        "[DONE]",
        "7",
    ] {
        assert_eq!(read(answer), None, "{answer}");
    }
}

#[test]
fn a_refusal_is_told_in_the_providers_words() {
    let said = |body: &str| classify(400, None, body.as_bytes()).said;
    assert_eq!(said(r#"{"error":{"message":"no"}}"#), "no");
    assert_eq!(said(r#"[{"error":{"message":"a"}},{"error":"b"}]"#), "a; b");
    assert_eq!(said(r#"{"object":"error","message":{"detail":[{"msg":"c"}]}}"#), "c");
    let quoting = r#"{"error":{"message":"Provider returned error","metadata":{"raw":"{\"error\":{\"message\":\"d\"}}"}}}"#;
    assert_eq!(said(quoting), "Provider returned error: d");
    assert_eq!(said("<html>"), "\"<html>\"");
    assert_eq!(said(r#"{"x":1}"#), r#""{\"x\":1}""#);
}

#[test]
fn a_wait_that_the_body_asks_for_is_known() {
    let body = r#"{"error":{"status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.5s"}]}}"#;
    assert_eq!(classify(429, None, body.as_bytes()).retry_after, Some(Duration::from_millis(34_500)));
    let header = Some(Duration::from_secs(7));
    assert_eq!(classify(429, header, body.as_bytes()).retry_after, header, "the header counts first");
}

#[test]
fn a_refusal_for_length_tells_the_window_if_it_states_one() {
    let windows = REFUSALS.iter().filter(|(.., reason)| *reason == Reason::Overflow).filter_map(
        |(server, status, body, _)| Some((*server, classify(*status, None, body.as_bytes()).window?)),
    );
    let expected = [
        ("Anthropic", 200_000),
        ("OpenAI, larger than a minute allows", 30_000),
        ("Azure", 8_192),
        ("Gemini", 1_048_576),
        ("Mistral", 32_768),
        ("DeepSeek", 65_536),
        ("Kimi", 131_072),
        ("Groq", 6_000),
        ("Together", 4_097),
        ("OpenRouter", 131_072),
        ("llama.cpp", 8_192),
        ("vLLM", 8_192),
        ("LM Studio", 4_096),
        ("DashScope", 30_720),
    ];
    assert_eq!(windows.collect::<Vec<_>>(), expected);
    let error =
        classify(400, None, br#"{"message":"prompt is too long: 9000 tokens > 8192 maximum"}"#).error("x");
    assert!(String::from_utf8_lossy(&error.body()).contains(r#""window":8192"#));
    assert_eq!(classify(401, None, b"context length is 8192, invalid api key").window, None);
}
