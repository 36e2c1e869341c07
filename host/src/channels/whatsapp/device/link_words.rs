//! What `lazaret link` and `lazaret unlink` say, and which phone numbers they take.

use std::time::Duration;

use ipc_schema::text_sanitize::safe_line;
use whatsapp_rust::pair_code::PairCodeRejection;
use whatsapp_rust::types::events::PairingCodeError;

use crate::channels::Account;
use crate::channels::linking::LinkError;
use crate::text;

pub(super) const SCAN: &str =
    "On the phone, open WhatsApp > Settings > Linked devices > Link a device, and scan this:";
pub(super) const TYPE: &str = "On the phone, open WhatsApp > Settings > Linked devices > Link a device > Link with phone \
                               number instead, and type this code:";
pub(super) const CONFIRMED: &str = "The phone has confirmed. This host logs in.";
pub(super) const NEW_ROUND: &str = "These codes have expired. Here is another one.";
/// Follows every refusal after the phone has listed this device.
const REMOVE: &str = "If the phone lists a linked device named Lazaret, log it out there";

fn error(code: &'static str, why: impl Into<String>) -> LinkError {
    LinkError { code, why: why.into() }
}

/// Returns the digits of a phone number.
pub(super) fn digits(phone: &str) -> Result<String, LinkError> {
    let refused = || {
        error(
            "whatsapp.phone",
            format!(
                "{:?} is no phone number with its country code, such as \"+49 151 1234567\"",
                safe_line(phone)
            ),
        )
    };
    let phone = phone.trim();
    let bare = phone.strip_prefix('+').or_else(|| phone.strip_prefix("00")).unwrap_or(phone);
    let digits: String = bare.chars().filter(|c| !" -./()".contains(*c)).collect();
    let is_number = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    // E.164 has at most 15 digits.
    if is_number && (7..=15).contains(&digits.len()) { Ok(digits) } else { Err(refused()) }
}

/// Returns a code as the phone shows it: `ABCD-EFGH`.
pub(super) fn grouped(code: &str) -> String {
    match code.split_at_checked(4) {
        Some((first, rest)) if code.len() == 8 => format!("{first}-{rest}"),
        _ => code.to_owned(),
    }
}

pub(super) fn run_this(javascript: &str) -> String {
    format!(
        "WhatsApp asks for the account's passkey. In a browser on a computer, open https://web.whatsapp.com and log \
         in with this account. Open the console of that tab (F12), paste this line there and press Enter:\n\n\
         {javascript}\n\n\
         The browser asks for the passkey and shows a line. Paste that line here."
    )
}

pub(super) fn pasted_wrong(why: &str) -> String {
    format!("That does not fit: {why}. Paste the line again.")
}

pub(super) fn compare(code: &str) -> String {
    format!("The phone shows a code. If it is {code}, press Enter here. If it is another one, press Ctrl-C.")
}

pub(super) fn already(account: &Account) -> LinkError {
    error(
        "whatsapp.linked",
        format!(
            "the account {} (+{}) is linked already; `lazaret unlink whatsapp` ends that link",
            safe_line(&account.name),
            account.id
        ),
    )
}

pub(super) fn in_progress() -> LinkError {
    error("whatsapp.linking", "another `lazaret link whatsapp` is at work; wait for its end, or end it")
}

pub(super) fn files(what: impl std::fmt::Display) -> LinkError {
    error("whatsapp.keys", format!("the keys cannot be stored: {what}"))
}

pub(super) fn no_network(why: &str) -> LinkError {
    error("whatsapp.network", format!("WhatsApp's server cannot be used: {why}"))
}

pub(super) fn no_answer(failure: Option<String>) -> LinkError {
    let why = failure.unwrap_or_else(|| "it answers, but not as WhatsApp's server does".into());
    error(
        "whatsapp.network",
        format!("WhatsApp's server cannot be reached: {why}. Nothing has changed; try again later"),
    )
}

pub(super) fn nobody(rounds: u32) -> LinkError {
    error(
        "whatsapp.not_confirmed",
        format!(
            "nobody has confirmed on the phone, over {rounds} rounds of codes. Nothing has changed; \
                 `lazaret link whatsapp` begins anew"
        ),
    )
}

pub(super) fn no_login() -> LinkError {
    error(
        "whatsapp.login",
        format!(
            "the phone has confirmed, but WhatsApp did not let this host log in. {REMOVE}, and try again"
        ),
    )
}

pub(super) fn old_phone() -> LinkError {
    error("whatsapp.phone_app", "the WhatsApp on the phone is too old to link devices; update it there")
}

pub(super) fn pair_refused(why: &str) -> LinkError {
    error(
        "whatsapp.pair",
        format!("the phone's confirmation could not be used ({}). {REMOVE}, and try again", safe_line(why)),
    )
}

pub(super) fn passkey_refused(why: &str) -> LinkError {
    error(
        "whatsapp.passkey",
        format!(
            "the passkey was not accepted ({}). `lazaret link whatsapp` begins anew; the browser must be logged in \
             with the same account",
            safe_line(why)
        ),
    )
}

pub(super) fn code_refused(refused: &PairingCodeError) -> LinkError {
    let wait = refused.backoff.unwrap_or(Duration::from_secs(3600));
    let why = match refused.rejection {
        Some(PairCodeRejection::FeatureNotAvailable) => {
            "WhatsApp offers no codes for this account; leave out --phone, and scan a QR code".to_owned()
        }
        Some(rejection) if rejection.is_throttled() => format!(
            "WhatsApp gives no code for this number: it is no number of WhatsApp, or too many codes were asked for. \
             Check the number, wait {}, or leave out --phone and scan a QR code",
            text::duration(wait)
        ),
        Some(rejection) => format!("WhatsApp gives no code for this number ({})", rejection.code()),
        None => format!("WhatsApp gives no code: {}", safe_line(&refused.error)),
    };
    error("whatsapp.code", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_number_has_its_country_code() {
        for good in ["+49 151 1234567", "0049-151-1234567", "491511234567", "+49 (151) 123.45/67"] {
            assert_eq!(digits(good).unwrap(), "491511234567", "{good}");
        }
        for bad in [
            "0151 1234567",
            "+0151 1234567",
            "123456",
            "1234567890123456",
            "+49 151 x",
            "",
            "+",
            "٤٩١٥١١٢٣٤٥٦٧",
        ] {
            let refused = digits(bad).unwrap_err();
            assert!(refused.why.contains("country code"), "{bad}: {}", refused.why);
        }
    }

    #[test]
    fn a_code_has_two_groups() {
        assert_eq!(grouped("ABCD1234"), "ABCD-1234");
        assert_eq!((grouped("ABCD-1234"), grouped("")), ("ABCD-1234".to_owned(), String::new()));
    }

    #[test]
    fn a_refused_code_says_what_helps() {
        let refused = |rejection: Option<i32>, backoff: Option<u64>| {
            let rejection = rejection.map(PairCodeRejection::from);
            let backoff = backoff.map(Duration::from_secs);
            let error = PairingCodeError::builder().error("no answer\n".into());
            code_refused(&error.maybe_rejection(rejection).maybe_backoff(backoff).build()).why
        };
        assert!(refused(Some(452), None).contains("leave out --phone"));
        assert!(refused(Some(400), Some(120)).contains("wait 2 min"), "{}", refused(Some(400), Some(120)));
        assert!(refused(Some(429), None).contains("wait 1 h"), "{}", refused(Some(429), None));
        assert!(refused(Some(599), None).contains("(599)"));
        assert!(refused(None, None).ends_with(r"no answer\n"));
    }
}
