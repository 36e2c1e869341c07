//! Ranks a few thousand texts for a query without an index, by the same terms as an index: `lazaret memory search`
//! and a box that cannot keep an index call it.

use std::collections::HashSet;

use crate::search_terms;

/// The texts that hold a term of the query, best first, as positions in `texts`. A rare term counts more than a
/// frequent one, and a short text more than a long one (the formula is BM25 with every term counted once).
pub fn rank<S: AsRef<str>>(query: &str, texts: &[S]) -> Vec<usize> {
    let Some(expression) = search_terms::match_expression(query) else { return Vec::new() };
    let wanted: Vec<(&str, bool)> = expression.split(" OR ").map(term).collect();
    let held: Vec<String> = texts.iter().map(|text| search_terms::index_text(text.as_ref())).collect();
    let held: Vec<HashSet<&str>> = held.iter().map(|terms| terms.split(' ').collect()).collect();
    let mean = held.iter().map(HashSet::len).sum::<usize>() as f64 / held.len().max(1) as f64;
    let mut scores = vec![0.0; held.len()];
    for (term, begins) in wanted {
        let has = |terms: &HashSet<&str>| {
            terms.contains(term) || (begins && terms.iter().any(|other| other.starts_with(term)))
        };
        let found: Vec<usize> = (0..held.len()).filter(|at| held.get(*at).is_some_and(has)).collect();
        let rest = (held.len() - found.len()) as f64;
        let weight = ((rest + 0.5) / (found.len() as f64 + 0.5)).ln_1p();
        for at in found {
            let length = held.get(at).map_or(0, HashSet::len) as f64 / mean.max(1.0);
            if let Some(score) = scores.get_mut(at) {
                *score += weight * 2.2 / (1.0 + 1.2 * (0.25 + 0.75 * length));
            }
        }
    }
    let mut ranked: Vec<(usize, f64)> =
        scores.into_iter().enumerate().filter(|(_, score)| *score > 0.0).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.into_iter().map(|(at, _)| at).collect()
}

/// A term of the expression, and whether a word's beginning is enough: `"tea"` or `"tea"*`.
fn term(written: &str) -> (&str, bool) {
    let begins = written.ends_with('*');
    (written.trim_end_matches('*').trim_matches('"'), begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_text_comes_first_in_any_form_and_script() {
        let texts = [
            "Ann likes walking in the mountains",
            "the walk to school takes ten minutes, with the dog a quarter of an hour, and more in winter",
            "Die Krankenversicherungskarte liegt im Flur",
            "王小明喜欢喝绿茶",
        ];
        assert_eq!(rank("walked mountain", &texts), [0, 1]);
        assert_eq!(rank("Versicherung", &texts), [2]);
        assert_eq!(rank("绿茶", &texts), [3]);
        assert_eq!(
            rank("", &texts).len() + rank("\" OR NEAR(", &texts).len() + rank("zebra", &texts).len(),
            0
        );
        assert!(rank("tea", &[] as &[&str]).is_empty());
    }
}
