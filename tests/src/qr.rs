//! Reads QR codes that a program has drawn with half blocks, as a phone's camera would.

/// Returns whether a line of a terminal can be a row of a QR code.
pub fn is_drawn(line: &str) -> bool {
    let blocks = plain(line);
    blocks.chars().count() >= 21 && blocks.chars().all(|c| " █▀▄".contains(c))
}

/// Returns what a QR code holds; `None` if these lines are none.
pub fn read(lines: &[String]) -> Option<String> {
    let rows: Vec<Vec<char>> = lines.iter().map(|line| plain(line).chars().collect()).collect();
    let width = rows.iter().map(Vec::len).max()?;
    // Light on dark and dark on light are both in use: a reader tries both.
    [true, false].into_iter().find_map(|lit_is_dark| {
        let scale = 4;
        let margin = 4;
        let (wide, high) = ((width + 2 * margin) * scale, (rows.len() * 2 + 2 * margin) * scale);
        let grey = |x: usize, y: usize| {
            let (Some(x), Some(y)) = ((x / scale).checked_sub(margin), (y / scale).checked_sub(margin))
            else {
                return 255;
            };
            if x >= width || y >= rows.len() * 2 {
                return 255;
            }
            let block = rows.get(y / 2).and_then(|row| row.get(x)).copied().unwrap_or(' ');
            let lit = match block {
                '█' => true,
                '▀' => y % 2 == 0,
                '▄' => y % 2 == 1,
                _ => false,
            };
            if lit == lit_is_dark { 0 } else { 255 }
        };
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(wide, high, grey);
        image.detect_grids().first()?.decode().ok().map(|(_, content)| content)
    })
}

/// Returns a line without the codes that set colours.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, code)) = rest.split_once("\u{1b}[") {
        out += before;
        rest = code.find(|c: char| c.is_ascii_alphabetic()).map_or("", |at| &code[at + 1..]);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use qrcode::QrCode;
    use qrcode::render::unicode::Dense1x2;

    #[test]
    fn a_drawn_code_is_read_whatever_its_colours() {
        let content =
            format!("2@{},{},{},{}", "r".repeat(170), "n".repeat(44), "i".repeat(44), "a".repeat(44));
        let code = QrCode::with_error_correction_level(&content, qrcode::EcLevel::L).expect("it fits");
        for (dark, light) in [(Dense1x2::Dark, Dense1x2::Light), (Dense1x2::Light, Dense1x2::Dark)] {
            let drawn = code.render::<Dense1x2>().dark_color(dark).light_color(light).build();
            let lines: Vec<String> = drawn.lines().map(|line| format!("\u{1b}[40m{line}\u{1b}[0m")).collect();
            assert!(lines.iter().all(|line| super::is_drawn(line)), "{drawn}");
            assert_eq!(super::read(&lines).as_deref(), Some(content.as_str()));
        }
        assert_eq!(super::read(&[]), None);
        assert!(!super::is_drawn("Scan this code with the phone."));
    }
}
