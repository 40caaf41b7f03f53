//! A QR code, drawn with half blocks: two rows of it in each line of a terminal.

use qrcodegen::{QrCode, QrCodeEcc};

use crate::render::{Colour, Screen};

/// Draws a text; nothing if it is too long, or the screen too narrow
pub(super) fn drawn(text: &str, screen: Screen) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let whole = code.size() + 2 * QUIET;
    if screen.width.is_some_and(|width| i32::try_from(width).is_ok_and(|width| width < whole)) {
        return None;
    }
    // The signs are the light parts: most terminals are dark, and where colours are welcome this
    // one is made so.
    let (begin, end) = match screen.colour {
        Colour::Welcome => ("\x1b[97;40m", "\x1b[0m"),
        Colour::Never => ("", ""),
    };
    let is_light = |x, y| !code.get_module(x - QUIET, y - QUIET);
    let mut picture = String::new();
    for y in (0..whole).step_by(2) {
        picture.push_str(begin);
        for x in 0..whole {
            // Below the last row nothing is drawn.
            picture.push(match (is_light(x, y), y + 1 < whole && is_light(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        picture.push_str(end);
        picture.push('\n');
    }
    Some(picture)
}

/// Light modules around the code; two are enough for what reads screens
const QUIET: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const PAPER: Screen = Screen { width: None, colour: Colour::Never };

    #[test]
    fn picture_has_the_modules_of_the_code() {
        let text = "FASTVPN:AEAG2ZLOMVXHI33LPFXQ";
        let picture = drawn(text, PAPER).unwrap();
        let lines: Vec<Vec<char>> = picture.lines().map(|line| line.chars().collect()).collect();
        let code = QrCode::encode_text(text, QrCodeEcc::Low).unwrap();

        for y in 0..code.size() {
            for x in 0..code.size() {
                let (column, row) = ((x + QUIET) as usize, (y + QUIET) as usize);
                let sign = lines[row / 2][column];
                let light = if row % 2 == 0 { ['█', '▀'] } else { ['█', '▄'] }.contains(&sign);
                assert_eq!(light, !code.get_module(x, y), "{x} {y}");
            }
        }
        assert!(lines[0].iter().all(|sign| *sign == '█'), "quiet zone");
    }

    #[test]
    fn narrow_terminal_gets_none_and_colours_are_closed_on_each_line() {
        let narrow = Screen { width: Some(20), colour: Colour::Never };
        let bright = Screen { width: Some(80), colour: Colour::Welcome };

        assert_eq!(drawn("FASTVPN:ABC", narrow), None);
        let picture = drawn("FASTVPN:ABC", bright).unwrap();
        assert!(picture.lines().all(|line| line.ends_with("\x1b[0m")), "{picture}");
        assert_eq!(drawn(&"X".repeat(10_000), PAPER), None, "no code holds that");
    }
}
