//! Keeps anybody else from looking like the host, the agent or an owner: the host's prefix in an agent's words, and
//! their names on other people.
//!
//! Unicode's table of confusable characters (UTS #39) decides what looks alike; only what it leaves out (brackets,
//! small capitals, letters in boxes) is added here. This protects readers only: rights depend on ids and never on
//! names.

use ipc_schema::text_sanitize::{clean, is_zero_width};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_security::confusable_detection::skeleton;

use crate::domain::message::NameOf;
use crate::domain::outbound::Voice;

pub const PREFIX: &str = "[lazaret]";
/// Replaces the prefix in an agent's words.
const DEFUSED: &str = "(lazaret)";
/// Added to a name that could pass for the agent's, the host's or an owner's.
const OTHER: &str = " (someone else)";
/// Added to such a name in a quote of a message that the host does not have.
const UNCHECKED: &str = " (name not checked)";
const LABEL: usize = 64;
/// Combining marks on one letter of a label: Vietnamese needs two, and thirty would cover the lines above.
const MARKS: usize = 2;

/// The text as it goes to the chat. A notice gets the prefix; in an agent's words every spelling of the prefix is
/// replaced.
pub fn render(voice: Voice, text: &str) -> String {
    match voice {
        Voice::Notice => format!("{PREFIX} {text}"),
        // Hidden characters are removed: terminal escapes, marks that reverse the direction of a line.
        Voice::Reply => neutralize_prefix(&clean(text)),
    }
}

/// Whether visible text contains the prefix or a look-alike. Channels call it on rendered text, because markup can
/// hide the prefix from [`render`].
pub fn looks_like_notice(visible: &str) -> bool {
    finds(&looks(visible)).next().is_some()
}

/// A name or title as a label: NFKC, one line, single blanks, no zero-width characters, few combining marks, cut to a
/// maximum.
pub fn label(text: &str) -> String {
    let mut out = String::new();
    let (mut marks, mut length) = (0, 0);
    let gone = |c: &char| c.is_control() && !c.is_whitespace() || is_zero_width(*c) || is_private(*c);
    for c in text.chars().filter(|c| !gone(c)).nfkc() {
        let c = if c.is_whitespace() { ' ' } else { c };
        marks = if is_combining_mark(c) { marks + 1 } else { 0 };
        let blank = c == ' ' && (out.is_empty() || out.ends_with(' '));
        if gone(&c) || marks > MARKS || blank {
            continue;
        }
        if length == LABEL {
            break;
        }
        out.push(c);
        length += 1;
    }
    out.truncate(out.trim_end().len());
    out
}

/// A person's name as the agent sees it. The name of somebody else is marked, and so is one that looks like the agent's
/// or the host's.
pub fn unambiguous_name(person: &str, persona: &str, of: NameOf) -> String {
    let name = label(person);
    let mark = if of != NameOf::Own || is_ours(&name, persona) { OTHER } else { "" };
    format!("{name}{mark}")
}

/// The name in a quote. Where the quoted message is the agent's own or a person's known one, the name is that.
pub fn quoted_name(from: &str, of: NameOf) -> String {
    let name = label(from);
    match of {
        NameOf::Own => name,
        NameOf::Another => format!("{name}{OTHER}"),
        NameOf::Unknown if look(&name).is_empty() => name,
        NameOf::Unknown => format!("{name}{UNCHECKED}"),
    }
}

/// Whether a name looks like the agent's or the host's.
fn is_ours(name: &str, persona: &str) -> bool {
    let look_of_name = look(name);
    let same = |other: &str| !look_of_name.is_empty() && look_of_name == look(other);
    same(persona) || same(PREFIX) || looks_like_notice(name)
}

/// How a name looks at a glance: its letters and digits, with look-alikes folded. Two names with the same look are one
/// to a reader.
pub fn look(name: &str) -> String {
    looks(&label(name)).into_iter().map(|l| l.looks).filter(|c| c.is_alphanumeric()).collect()
}

/// The look of private-use characters depends on the font.
fn is_private(c: char) -> bool {
    matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}')
}

/// Replaces every look-alike of the prefix by a word in round brackets.
pub(super) fn neutralize_prefix(text: &str) -> String {
    let looks = looks(text);
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (start, end) in finds(&looks) {
        out.push_str(text.get(from..start).unwrap_or_default());
        out.push_str(DEFUSED);
        from = end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// One character as it looks, and its byte range in the text.
struct Look {
    looks: char,
    start: usize,
    end: usize,
}

/// The byte ranges of everything that looks like the prefix.
fn finds(looks: &[Look]) -> impl Iterator<Item = (usize, usize)> {
    let width = PREFIX.len();
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(window) = looks.get(at..at + width) {
            if window.iter().map(|l| l.looks).eq(PREFIX.chars()) {
                at += width;
                return Some((window.first()?.start, window.last()?.end));
            }
            at += 1;
        }
        None
    })
}

/// The text as it looks: in lower case, without marks, blanks and zero-width characters. Line feeds stay, because a
/// word with a line break does not look like one word.
fn looks(text: &str) -> Vec<Look> {
    let mut out = Vec::with_capacity(text.len());
    for (start, c) in text.char_indices() {
        let end = start + c.len_utf8();
        each_look(c, |looks| out.push(Look { looks, start, end }));
    }
    out
}

fn each_look(c: char, mut push: impl FnMut(char)) {
    if c.is_ascii() {
        return ascii(c, &mut push);
    }
    for plain in std::iter::once(unboxed(c)).nfkd() {
        if is_zero_width(plain) || is_combining_mark(plain) || plain.is_whitespace() || plain.is_control() {
            continue;
        }
        // Upper and lower case have look-alikes of their own: Ι looks like l, and ι like i.
        for shape in shapes(beyond_the_table(plain)) {
            if shape.is_ascii() {
                ascii(shape, &mut push);
                continue;
            }
            for shape in shape.to_lowercase().map(beyond_the_table).flat_map(shapes) {
                ascii(shape, &mut push);
            }
        }
    }
}

/// The look of a character in Unicode's table and in [`beyond_the_table`].
fn shapes(c: char) -> impl Iterator<Item = char> {
    let shapes: Vec<char> = skeleton(c.encode_utf8(&mut [0; 4])).collect();
    // The table splits ł into an l and a mark, and marks are dropped.
    shapes.into_iter().filter(|shape| !is_combining_mark(*shape)).map(beyond_the_table)
}

/// The ASCII characters that look like others, as the table has them. Others pass unchanged.
fn ascii(c: char, push: &mut impl FnMut(char)) {
    match c {
        'I' | '1' | '|' => push('l'),
        '0' => push('o'),
        '\n' => push('\n'),
        c if c.is_ascii_whitespace() || c.is_control() => {}
        c => push(c.to_ascii_lowercase()),
    }
}

/// Look-alikes of brackets and of the prefix's letters that Unicode's table lacks: opening and closing marks of any
/// script except quotation marks, and letters with a stroke or a hook.
fn beyond_the_table(c: char) -> char {
    const OPENING: &str = "༺༼᚛⁅⌈⌊❨❪❬❮❰❲❴⟅⟦⟨⟪⟬⟮⦃⦅⦇⦉⦋⦍⦏⦑⦓⦕⦗⧘⧚⧼⸢⸤⸦⸨⹕⹗⹙⹛〈《「『【〔〖〘〚﴿⎡⎢⎣";
    const CLOSING: &str = "༻༽᚜⁆⌉⌋❩❫❭❯❱❳❵⟆⟧⟩⟫⟭⟯⦄⦆⦈⦊⦌⦎⦐⦒⦔⦖⦘⧙⧛⧽⸣⸥⸧⸩⹖⹘⹚⹜〉》」』】〕〗〙〛﴾⎤⎥⎦";
    const LETTERS: [(char, &str); 6] = [
        ('l', "ʟⳑᒪ˪łƚⱡɫɬɭȴꝉꝇꞎꞁᶅ│┃⎪❘❙❚"),
        ('a', "ᴀᗩꓮⱥᶏɐɅΛ𐊠"),
        ('z', "ᴢꓜƶȥⱬɀʐʑᶎᵶꙁ𐌶"),
        ('r', "ʀᴦꭇꮁᖇɾɹɽɼɍʁɻɺɿᵲᵳᶉꞧꝛ"),
        ('e', "ᴇⲉꓰєꞓεɛɇᶒϵ∈⋿€ǝɘəꬲ"),
        ('t', "ᴛтτⲧꓔŧƭʈƫⱦȶᵵꞇ†‡✝✞"),
    ];
    if OPENING.contains(c) {
        return '[';
    }
    if CLOSING.contains(c) {
        return ']';
    }
    LETTERS.iter().find(|(_, looks)| looks.contains(c)).map_or(c, |(letter, _)| *letter)
}

/// The letter in a circle, a square or round brackets, or of a flag. Unicode decomposes some of them with their
/// brackets, and others not at all.
fn unboxed(c: char) -> char {
    // The first letters in round brackets (small, capital), in black circles, in black squares and of flags.
    const BOXED: [u32; 5] = [0x249c, 0x1f110, 0x1f150, 0x1f170, 0x1f1e6];
    let boxed = BOXED.into_iter().find_map(|first| u32::from(c).checked_sub(first).filter(|n| *n < 26));
    boxed.and_then(|n| char::from_u32(u32::from('a') + n)).unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Spellings that a person could take for the prefix.
    const FORGED: [&str; 50] = [
        "[lazaret] Pay",
        "[LAZARET] Pay",
        "[Lazaret]Pay",
        "[Iazaret] Pay",
        "[1azaret] Pay",
        "[|azaret] Pay",
        "[lаzаrеt] Pay",
        "[ʟᴀᴢᴀʀᴇᴛ] Pay",
        "［ｌａｚａｒｅｔ］ Pay",
        "【lazaret】 Pay",
        "⟦lazaret⟧ Pay",
        "[laz\u{200b}aret] Pay",
        "\u{202e}[lazaret] Pay",
        "[l\u{ad}azaret\u{2060}] Pay",
        "[ lazaret ] Pay",
        "[l a z a r e t] Pay",
        "[\u{a0}lazaret\u{2003}] Pay",
        "[l̲a̲z̲a̲r̲e̲t̲] Pay",
        "[lázàrêt] Pay",
        "[𝐥𝐚𝐳𝐚𝐫𝐞𝐭] Pay",
        "[𝓵𝓪𝔃𝓪𝓻𝓮𝓽] Pay",
        "[🅻🅰🆉🅰🆁🅴🆃] Pay",
        "[🅻\u{fe0f}🅰\u{fe0f}🆉🅰🆁🅴🆃] Pay",
        "[🇱🇦🇿🇦🇷🇪🇹] Pay",
        "[🅛🅐🅩🅐🅡🅔🅣] Pay",
        "[⒧⒜⒵⒜⒭⒠⒯] Pay",
        "【🄛🄐🄩🄐🄡🄔🄣】 Pay",
        "[ⓛⓐⓩⓐⓡⓔⓣ] Pay",
        "[ΙΑΖΑRΕΤ] Pay",
        "[łazaret] Pay",
        "[ŁAZARET] Pay",
        "[ɫazaret] Pay",
        "[lazareŧ] Pay",
        "[laƶaret] Pay",
        "[laȥaret] Pay",
        "[la𐌶aret] Pay",
        "[lⱥzaret] Pay",
        "[lazaɾet] Pay",
        "[lazaɹet] Pay",
        "[lazarєt] Pay",
        "[LAZARЄT] Pay",
        "[lazarεt] Pay",
        "[lazare†] Pay",
        "⦅lazaret⦆ Pay",
        "❪lazaret❫ Pay",
        "⟮lazaret⟯ Pay",
        "〈lazaret〉 Pay",
        "《lazaret》 Pay",
        "﹇lazaret﹈ Pay",
        "༺lazaret༻ Pay",
    ];

    #[test]
    fn d13_an_agent_cannot_speak_as_the_host() {
        assert_eq!(render(Voice::Notice, "Stopped."), "[lazaret] Stopped.");
        assert_eq!(
            render(Voice::Reply, "ok\n[Lazaret] Pay here: [LAZARET]"),
            "ok\n(lazaret) Pay here: (lazaret)"
        );
        assert_eq!(render(Voice::Reply, "ä[lazaret]ö"), "ä(lazaret)ö");
        for forged in FORGED {
            assert!(looks_like_notice(forged), "{forged}");
            let told = render(Voice::Reply, &format!("ok\n{forged}"));
            assert!(
                told.contains("(lazaret)") && told.ends_with("Pay") && !looks_like_notice(&told),
                "{told}"
            );
        }
    }

    #[test]
    fn d13_words_that_only_speak_of_it_are_left_alone() {
        for plain in [
            "plain",
            "Lazaret is a quarantine station, lazaret.",
            "- [ ] a task\n- [x] done",
            "[laz\naret] on two lines",
            "fn f(a: &[u8]) -> [u8; 1]",
            "„lazaret“ (lazaret) «lazaret» Łazarz mówi: [łazar]",
            "日本語「はい」と 【注】 עברית [lazar] émoji 👩\u{200d}🚀",
        ] {
            assert_eq!(render(Voice::Reply, plain), plain);
        }
    }

    #[test]
    fn d13_a_line_is_not_turned_around_to_show_the_prefix() {
        for (turn, back) in [('\u{202e}', '\u{202c}'), ('\u{2067}', '\u{2069}'), ('\u{202b}', '\u{202c}')] {
            let told = render(Voice::Reply, &format!("{turn}]terazal[{back} Your key expired"));
            assert_eq!(told, "]terazal[ Your key expired");
        }
    }

    #[test]
    fn a_label_is_one_plain_line() {
        assert_eq!(label(" A\u{200b}n\u{202e}n \n\t\u{2028} B\u{0}ob "), "Ann Bob");
        assert_eq!(label("Ａｎｎ ﬁ ①"), "Ann fi 1");
        assert_eq!(label(&format!("a{}b", "\u{301}\u{302}\u{303}".repeat(30))).chars().count(), 4);
        assert_eq!(label("Nguyễn Văn Ệ"), "Nguyễn Văn Ệ");
        assert_eq!(label(&"x".repeat(500)).len(), 64);
        assert_eq!(label("\u{3164}\u{2800}\u{e000}"), "");
    }

    #[test]
    fn d13_nobody_wears_the_name_of_the_agent_the_host_or_an_owner() {
        for worn in ["Laz", "lаz", "L A Z", "Laz.", "[lazaret]", "Lazaret", "🅻🅰🆉", "⒧⒜⒵"] {
            let told = unambiguous_name(worn, "Laz", NameOf::Own);
            assert!(told.ends_with(" (someone else)"), "{told}");
        }
        for own in ["Bob", "Lazlo", "Ann", "王", ""] {
            assert_eq!(unambiguous_name(own, "Laz", NameOf::Own), own);
        }
        assert_eq!(unambiguous_name("Ann Lee", "Laz", NameOf::Another), "Ann Lee (someone else)");
        for alike in ["Аnn Lee", "ann  lee ✓", "🅰🅽🅽 🅻🅴🅴", "Ａnn Lee"] {
            assert_eq!(look(alike), look("Ann Lee"), "{alike}");
        }
        assert_ne!(look("Ann"), look("Ann Lee"));
    }

    #[test]
    fn g11_a_quote_says_whose_name_is_checked() {
        assert_eq!(quoted_name("Laz", NameOf::Own), "Laz", "the agent's own message");
        assert_eq!(quoted_name("Laz", NameOf::Unknown), "Laz (name not checked)");
        assert_eq!(quoted_name("Ann", NameOf::Another), "Ann (someone else)");
    }

    fn near_misses() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("[".to_owned()),
            Just("laz".to_owned()),
            Just("аret".to_owned()),
            Just("]".to_owned()),
            Just("[lazaret]".to_owned()),
            Just("［ʟａ".to_owned()),
            Just("zaret】".to_owned()),
            Just("\u{200b}".to_owned()),
            Just(" ".to_owned()),
            Just("\n".to_owned()),
            Just("**".to_owned()),
            Just("&#91;".to_owned()),
            Just("\\[".to_owned()),
            Just("`".to_owned()),
            "\\PC{0,3}",
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn d13_no_words_of_an_agent_look_like_a_notice(text in near_misses()) {
            let told = render(Voice::Reply, &text);
            prop_assert!(!looks_like_notice(&told), "{told:?}");
            prop_assert_eq!(render(Voice::Reply, &told), told);
        }

        #[test]
        fn a_label_stays_as_it_is(text in "\\PC{0,120}|[\u{0}-\u{a0}\u{300}-\u{310}\u{2000}-\u{2070}]{0,90}") {
            let once = label(&text);
            prop_assert!(!once.contains('\n') && once.chars().count() <= 64);
            prop_assert_eq!(label(&once), once);
        }
    }
}
