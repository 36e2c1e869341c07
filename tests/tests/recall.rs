//! What the memory's search index finds, and that it is better than looking for substrings.

use journeys::bench;

/// The share of queries that are answered among the first five results, in hundredths.
const FLOOR: usize = 90;

#[test]
fn memories_are_found_in_eight_languages() {
    let table = bench::recall();
    for line in &table {
        println!("{}", line.json());
    }
    let all = table.last().unwrap();
    assert!(table.len() == 9 && all.queries >= 60, "the data is whole");
    assert!(all.found * 100 >= all.queries * FLOOR, "missed: {:?}", all.missed);
    assert!(all.found > all.substring, "substrings are as good");
    for line in &table {
        assert!(line.found >= line.substring, "substrings are better: {line:?}");
        assert!(line.found * 100 >= line.queries * 75, "{line:?}");
    }
}

#[test]
fn ten_thousand_entries_are_indexed() {
    let cost = bench::ten_thousand();
    println!("{cost}");
    // The size does not depend on the machine. The texts alone have half a megabyte.
    assert!(cost["index_bytes"].as_u64().unwrap() < 4 << 20, "{cost}");
}
