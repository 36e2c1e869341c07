//! What `lazaret link` and `lazaret unlink` say, and which phone numbers they take.

use std::time::Duration;

use ipc_schema::text_sanitize::safe_line;
use whatsapp_rust::pair_code::PairCodeRejection;
use whatsapp_rust::types::events::PairingCodeError;

use crate::channels::Account;
use crate::channels::linking::LinkError;
use crate::text;

pub(super) const CONNECTING: &str = "Connecting to WhatsApp …";
pub(super) const SCAN: &str = "On the phone, open WhatsApp. Android: ⋮ on the list of chats, then Linked devices. \
                               iPhone: Settings, then Linked Devices. Choose Link a device, and scan this:";
pub(super) const TYPE: &str = "On the phone, open WhatsApp. Android: ⋮ on the list of chats, then Linked devices. \
                               iPhone: Settings, then Linked Devices. Choose Link a device, then Link with phone \
                               number instead, and type this code:";
pub(super) const CONFIRMED: &str = "The phone has confirmed. Logging in …";
pub(super) const NEW_ROUND: &str = "Nobody has used these codes, and they have expired. Here is another one.";
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
        "WhatsApp asks for the account's passkey. You have 10 minutes. In a browser on a computer, open \
         https://web.whatsapp.com and log in with this account. Press F12 and choose Console. Paste this line there and \
         press Enter; if the browser does not let you paste, type `allow pasting` first:\n\n\
         {javascript}\n\n\
         The browser asks for the passkey and then shows a line. Copy that line, and paste it here."
    )
}

pub(super) fn pasted_wrong(why: &str) -> String {
    format!("That does not fit: {why}. Paste the line again.")
}

pub(super) fn compare(code: &str) -> String {
    format!(
        "The phone shows a code. If it is {code}, press Enter here. If it is another one, somebody else tries to link a \
         device with your passkey: press Ctrl-C, and confirm nothing on the phone."
    )
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
    error("whatsapp.keys", format!("this command cannot store or read the keys: {what}"))
}

pub(super) fn no_network(why: &str) -> LinkError {
    error("whatsapp.network", format!("this host cannot use WhatsApp's server: {why}"))
}

pub(super) fn keys_in_use() -> LinkError {
    error(
        "whatsapp.in_use",
        "another process uses the keys: a host that does not answer, or another `lazaret unlink whatsapp`. Wait for its \
         end, or end it, and try again",
    )
}

/// `failure` says why the server could not be reached; without it, it was reached and sent no code.
pub(super) fn no_code(failure: Option<String>, within: Duration) -> LinkError {
    let why = match failure {
        Some(why) => {
            format!("this host cannot reach WhatsApp's server: {why}. Nothing has changed; try again later")
        }
        None => format!(
            "WhatsApp's server answered, but sent no code within {}. Nothing has changed; try again later. If that does \
             not help, install a newer Lazaret",
            text::duration(within)
        ),
    };
    error("whatsapp.network", why)
}

pub(super) fn no_passkey(within: Duration) -> LinkError {
    error(
        "whatsapp.passkey",
        format!(
            "nobody has pasted the browser's line within {}. {REMOVE}, and begin again with `lazaret link whatsapp`",
            text::duration(within)
        ),
    )
}

pub(super) fn not_compared(within: Duration) -> LinkError {
    error(
        "whatsapp.not_confirmed",
        format!(
            "nobody has pressed Enter within {}. {REMOVE}, and begin again with `lazaret link whatsapp`",
            text::duration(within)
        ),
    )
}

pub(super) fn no_input() -> LinkError {
    error(
        "whatsapp.not_confirmed",
        format!(
            "the input of this command has ended, so nobody can confirm the code. {REMOVE}, and run `lazaret link \
             whatsapp` on a terminal"
        ),
    )
}

pub(super) fn no_confirmation(within: Duration) -> LinkError {
    error(
        "whatsapp.not_confirmed",
        format!(
            "you have confirmed the code, but the phone has not within {}. {REMOVE}, and try again",
            text::duration(within)
        ),
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
            "the phone has confirmed, but WhatsApp has not let this host log in in time. {REMOVE}, and try again"
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
        Some(rejection) => format!(
            "WhatsApp gives no code for this number (its reason has the number {}). Check the number, or leave out --phone \
             and scan a QR code",
            rejection.code()
        ),
        None => format!(
            "WhatsApp gives no code: {}. Try again, or leave out --phone and scan a QR code",
            safe_line(&refused.error)
        ),
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
        assert!(refused(Some(599), None).contains("number 599"));
        assert!(refused(None, None).contains(r"no answer\n. Try again"));
    }
}
