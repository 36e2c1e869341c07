//! The prices of models. This table is the only place to edit when they change. A test here holds that the default
//! model of each kind of provider (`domain::ProviderKind`) has a price.
//!
//! Prices are in micro-dollars per million tokens, which is dollars per million times 1,000,000. Sources:
//! <https://platform.claude.com/docs/en/about-claude/pricing> and <https://platform.openai.com/docs/pricing>, as of
//! November 2026. A model whose price depends on something that an answer does not state (service tier, region) is left
//! out: an unknown cost stays unknown and is never guessed.

use super::token_meter::Tokens;

/// The name of the scripted model.
pub const DEMO_MODEL: &str = "demo";

/// The prices of one model, or of its prompts beyond a length.
#[derive(Debug, Clone, Copy)]
struct Rates {
    input: u64,
    output: u64,
    cache_read: u64,
    /// A cache entry of five minutes. One of an hour costs twice the input price at every Anthropic model.
    cache_write: u64,
}

struct Row {
    /// The model, without a snapshot's date.
    model: &'static str,
    rates: Rates,
    /// Prompts longer than this many tokens cost these rates instead, for all of their tokens.
    long: Option<(u64, Rates)>,
}

/// One row from dollars per million tokens, in thousandths of a dollar so that the table stays in integers.
const fn row(model: &'static str, input: u64, output: u64, cache_read: u64, cache_write: u64) -> Row {
    Row { model, rates: milli(input, output, cache_read, cache_write), long: None }
}

const fn milli(input: u64, output: u64, cache_read: u64, cache_write: u64) -> Rates {
    Rates {
        input: input * 1000,
        output: output * 1000,
        cache_read: cache_read * 1000,
        cache_write: cache_write * 1000,
    }
}

const TABLE: &[Row] = &[
    // $0.001 per million: input, output, cache read, cache write (5 min)
    row("claude-fable-5-1", 10_000, 50_000, 250, 12_500),
    row("claude-fable-5", 10_000, 50_000, 1000, 12_500),
    row("claude-opus-5-5", 4000, 20_000, 200, 5000),
    row("claude-opus-5", 5000, 25_000, 500, 6250),
    row("claude-opus-4-8", 5000, 25_000, 500, 6250),
    row("claude-opus-4-7", 5000, 25_000, 500, 6250),
    row("claude-opus-4-6", 5000, 25_000, 500, 6250),
    row("claude-opus-4-5", 5000, 25_000, 500, 6250),
    row("claude-opus-4-1", 15_000, 75_000, 1500, 18_750),
    row("claude-sonnet-5-5", 2000, 10_000, 100, 2500),
    row("claude-sonnet-5", 2000, 10_000, 200, 2500),
    row("claude-sonnet-4-6", 3000, 15_000, 300, 3750),
    row("claude-sonnet-4-5", 3000, 15_000, 300, 3750),
    row("claude-sonnet-4", 3000, 15_000, 300, 3750),
    Row {
        model: "claude-haiku-5-5",
        rates: milli(100, 500, 10, 125),
        long: Some((100_000, milli(500, 2500, 50, 625))),
    },
    row("claude-haiku-4-5", 1000, 5000, 100, 1250),
    row("claude-3-5-haiku", 800, 4000, 80, 1000),
    row("gpt-5.2", 1750, 14_000, 175, 0),
    row("gpt-5.1", 1250, 10_000, 125, 0),
    row("gpt-5", 1250, 10_000, 125, 0),
    row("gpt-5-mini", 250, 2000, 25, 0),
    row("gpt-5-nano", 50, 400, 5, 0),
    row("gpt-4.1", 2000, 8000, 500, 0),
    row("gpt-4.1-mini", 400, 1600, 100, 0),
    row("gpt-4.1-nano", 100, 400, 25, 0),
    row("gpt-4o", 2500, 10_000, 1250, 0),
    row("gpt-4o-mini", 150, 600, 75, 0),
    row(DEMO_MODEL, 0, 0, 0, 0),
];

/// Returns what these tokens cost at `model`, in micro-dollars, rounded up; `None` when the table has no such model.
pub fn cost(model: &str, tokens: &Tokens) -> Option<u64> {
    let row = TABLE.iter().filter(|row| is_snapshot(model, row.model)).max_by_key(|row| row.model.len())?;
    // Saturating: the counts come from the provider and may be anything.
    let prompt = tokens.input.saturating_add(tokens.cache_read).saturating_add(tokens.cache_write);
    let rates = match &row.long {
        Some((threshold, long)) if prompt > *threshold => long,
        _ => &row.rates,
    };
    let hour = tokens.cache_write_hour.min(tokens.cache_write);
    let sum = u128::from(tokens.input) * u128::from(rates.input)
        + u128::from(tokens.output) * u128::from(rates.output)
        + u128::from(tokens.cache_read) * u128::from(rates.cache_read)
        + u128::from(tokens.cache_write - hour) * u128::from(rates.cache_write)
        + u128::from(hour) * u128::from(2 * rates.input);
    u64::try_from(sum.div_ceil(1_000_000)).ok()
}

/// Whether `model` is `known` or a snapshot of it: `-20250929`, `-2025-08-07`, `-latest`. A bare prefix would not do:
/// `gpt-5-pro` costs twelve times what `gpt-5` costs.
fn is_snapshot(model: &str, known: &str) -> bool {
    let Some(rest) = model.strip_prefix(known) else { return false };
    let Some(tag) = rest.strip_prefix('-') else { return rest.is_empty() };
    let shape: String = tag.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    matches!(shape.as_str(), "00000000" | "0000-00-00" | "latest")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(input: u64, output: u64) -> Tokens {
        Tokens { input, output, ..Tokens::default() }
    }

    #[test]
    fn a_call_costs_what_the_price_page_says() {
        let million = 1_000_000;
        assert_eq!(cost("claude-sonnet-4-5-20250929", &tokens(million, million)), Some(18 * million));
        let cached = Tokens {
            input: 1000,
            output: 100,
            cache_read: 10_000,
            cache_write: 2000,
            cache_write_hour: 1000,
        };
        // 3000 + 1500 + 3000 + 3750 + 6000 micro-dollars
        assert_eq!(cost("claude-sonnet-4-5", &cached), Some(17_250));
        assert_eq!(cost("gpt-5-nano", &tokens(1, 0)), Some(1), "rounded up, never free");
    }

    #[test]
    fn a_long_prompt_costs_the_long_rates_for_all_of_it() {
        assert_eq!(cost("claude-haiku-5-5", &tokens(100_000, 0)), Some(10_000));
        assert_eq!(cost("claude-haiku-5-5", &tokens(200_000, 0)), Some(100_000));
    }

    #[test]
    fn a_model_that_is_not_in_the_table_has_no_price() {
        for unknown in ["llama3", "gpt-5-pro", "claude-opus-4-9", "claude-opus-9-20990101", "gpt-5.22", ""] {
            assert_eq!(cost(unknown, &tokens(1, 1)), None, "{unknown}");
        }
        for known in ["gpt-5-2025-08-07", "gpt-4o-mini", "claude-3-5-haiku-latest"] {
            assert!(cost(known, &tokens(1, 1)).is_some(), "{known}");
        }
        assert_eq!(cost(DEMO_MODEL, &tokens(1, 1)), Some(0));
    }

    #[test]
    fn the_models_of_a_new_install_have_a_price() {
        use crate::domain::ProviderKind;
        for kind in [ProviderKind::Anthropic, ProviderKind::Openai, ProviderKind::Demo] {
            assert!(cost(kind.default_model(), &tokens(1, 1)).is_some(), "{kind:?}");
        }
    }
}
