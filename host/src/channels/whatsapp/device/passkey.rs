//! The proof with a passkey that WhatsApp asks of many accounts after the code. Only a browser that is logged in to
//! `web.whatsapp.com` can give it: the person runs one line of JavaScript there, and pastes the result back.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};
use whatsapp_rust::passkey::{Assertion, AssertionRequest};

/// The longest result. Real ones have about a thousand bytes.
const PASTED_MAX: usize = 32 << 10;

/// Returns the line of JavaScript that asks the browser for the proof and shows it.
pub(super) fn javascript(request: &AssertionRequest) -> Result<String, String> {
    let options: Value = serde_json::from_str(&request.raw_options_json).map_err(|e| e.to_string())?;
    Ok(format!(
        "(async()=>{{const o={options};\
         const d=s=>Uint8Array.from(atob(s.replace(/-/g,'+').replace(/_/g,'/')),c=>c.charCodeAt(0));\
         const e=b=>b?btoa(String.fromCharCode(...new Uint8Array(b))).replace(/\\+/g,'-').replace(/\\//g,'_')\
         .replace(/=+$/,''):null;\
         o.challenge=d(o.challenge);(o.allowCredentials||[]).forEach(c=>{{c.id=d(c.id)}});\
         const c=await navigator.credentials.get({{publicKey:o}}),r=c.response;\
         prompt('Copy this line',JSON.stringify({{id:c.id,rawId:e(c.rawId),type:c.type,response:\
         {{clientDataJSON:e(r.clientDataJSON),authenticatorData:e(r.authenticatorData),signature:e(r.signature),\
         userHandle:e(r.userHandle)}}}}))}})()"
    ))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pasted {
    id: String,
    raw_id: String,
    response: Response,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    authenticator_data: String,
    signature: String,
    user_handle: Option<String>,
}

/// Reads what a person has pasted.
///
/// # Errors
/// What is wrong with it, in words for the person.
pub(super) fn assertion(pasted: &str, request: &AssertionRequest) -> Result<Assertion, String> {
    let pasted = pasted.trim();
    if pasted.len() > PASTED_MAX {
        return Err("that is too long".into());
    }
    // A console shows a text in quotation marks.
    let line = pasted.trim_matches(['\'', '"', '`']);
    let found: Pasted =
        serde_json::from_str(line).map_err(|_| "that is not the line that the browser showed".to_owned())?;
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
    let Response { client_data, authenticator_data, signature, user_handle } = found.response;
    let credential_id = decode(&found.raw_id).map_err(|_| "its rawId is not base64url".to_owned())?;
    for part in [&client_data, &authenticator_data, &signature] {
        decode(part).map_err(|_| "a part of it is not base64url".to_owned())?;
    }
    let signed: Option<Value> =
        decode(&client_data).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let challenge = signed.as_ref().and_then(|signed| signed.get("challenge")).and_then(Value::as_str);
    if challenge.is_some_and(|signed| decode(signed).ok().as_ref() != Some(&request.challenge)) {
        return Err("that is the result of an earlier line".into());
    }
    let assertion = json!({
        "id": found.id,
        "rawId": found.raw_id,
        "type": "public-key",
        "response": {
            "clientDataJSON": client_data,
            "authenticatorData": authenticator_data,
            "signature": signature,
            "userHandle": user_handle,
        },
    });
    Ok(Assertion { assertion_json: assertion.to_string().into_bytes(), credential_id })
}

#[cfg(test)]
mod tests {
    use whatsapp_rust::passkey::parse_request_options;

    use super::*;

    fn request() -> AssertionRequest {
        parse_request_options(
            &json!({ "challenge": URL_SAFE_NO_PAD.encode("ask"), "rpId": "web.whatsapp.com", "allowCredentials": [
                { "type": "public-key", "id": "a'</script>" }
            ] })
            .to_string()
            .replace("a'</script>", "YQ"),
        )
        .unwrap()
    }

    fn result(challenge: &str) -> Value {
        let signed = json!({ "type": "webauthn.get", "challenge": URL_SAFE_NO_PAD.encode(challenge) });
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        json!({ "id": part("key"), "rawId": part("key"), "type": "public-key", "response": {
            "clientDataJSON": part(&signed.to_string()), "authenticatorData": part("data"),
            "signature": part("signature"), "userHandle": null,
        } })
    }

    #[test]
    fn the_browser_gets_one_line_with_the_servers_question() {
        let line = javascript(&request()).unwrap();
        assert_eq!(line.lines().count(), 1);
        assert!(line.starts_with("(async()=>{const o={") && line.ends_with("})()"), "{line}");
        assert!(line.contains(r#""rpId":"web.whatsapp.com""#) && line.contains("navigator.credentials.get"));
    }

    #[test]
    fn what_the_browser_shows_is_the_proof() {
        for pasted in [result("ask").to_string(), format!("  '{}'\n", result("ask"))] {
            let proof = assertion(&pasted, &request()).unwrap();
            assert_eq!(proof.credential_id, b"key");
            assert_eq!(serde_json::from_slice::<Value>(&proof.assertion_json).unwrap(), result("ask"));
        }
    }

    #[test]
    fn anything_else_is_refused_with_a_reason_and_can_be_pasted_again() {
        let mut no_base64 = result("ask");
        no_base64["response"]["signature"] = "%%%".into();
        for (pasted, why) in [
            (result("another").to_string(), "earlier line"),
            (no_base64.to_string(), "base64url"),
            ("undefined".to_owned(), "not the line"),
            ("{}".to_owned(), "not the line"),
            (String::new(), "not the line"),
            ("x".repeat(PASTED_MAX + 1), "too long"),
        ] {
            let refused = assertion(&pasted, &request()).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
