//! Decodes a picture and scales it down for a model. The content is hostile: [`super::decoder`] runs this in a process
//! of its own, whose memory is bounded.

use std::fs::File;
use std::io::{Cursor, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::PIECE_BYTES;

/// The greatest size of a picture that is decoded, in pixels. Phones make 50 million.
const PIXELS_MAX: u64 = 52_000_000;
/// The most bytes that a decoder may take, and the most that its process may take.
const DECODER_BYTES: u64 = 512 * 1024 * 1024;
const PROCESS_BYTES: u64 = 768 * 1024 * 1024;
/// The longest edge and the pixels of a picture in a request: beyond this Anthropic scales down itself.
const EDGE_MAX: u32 = 1_568;
const SHOWN_PIXELS: u64 = super::PICTURE_TOKENS * 750;
/// JPEG qualities, tried in turn until the picture is small enough.
const QUALITIES: [u8; 3] = [85, 60, 30];

const FORMATS: [(ImageFormat, &str); 4] = [
    (ImageFormat::Jpeg, "image/jpeg"),
    (ImageFormat::Png, "image/png"),
    (ImageFormat::Gif, "image/gif"),
    (ImageFormat::WebP, "image/webp"),
];

/// Whether a file that starts with these bytes is a picture of a format that is decoded.
pub fn is_known(start: &[u8]) -> bool {
    image::guess_format(start).is_ok_and(|format| FORMATS.iter().any(|(known, _)| *known == format))
}

/// The media type of a fitted picture.
pub fn media_type(fitted: &[u8]) -> &'static str {
    if fitted.starts_with(b"\x89PNG") { "image/png" } else { "image/jpeg" }
}

/// The command `fit-picture`: the picture on the standard input, scaled down, to the standard output.
pub fn command() -> ExitCode {
    // If the box has not enough memory, the kernel ends this process and not the runner.
    if let Ok(mut score) = File::options().write(true).open("/proc/self/oom_score_adj") {
        let _ = score.write_all(b"1000");
    }
    let limit = Rlimit { current: Some(PROCESS_BYTES), maximum: Some(PROCESS_BYTES) };
    let fitted = setrlimit(Resource::As, limit)
        .map_err(std::io::Error::from)
        .and_then(|()| std::io::stdin().as_fd().try_clone_to_owned())
        .map_err(|e| e.to_string())
        .and_then(|input| fit(File::from(input)))
        .and_then(|fitted| std::io::stdout().write_all(&fitted).map_err(|e| e.to_string()));
    match fitted {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// The first frame of a picture as JPEG or PNG, turned upright, within the limits of a request.
///
/// # Errors
/// For the model: what is wrong with it.
pub fn fit(mut file: File) -> Result<Vec<u8>, String> {
    let bytes = super::whole(&mut file)?;
    let mut reader =
        ImageReader::new(Cursor::new(&bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let format = reader.format().filter(|format| FORMATS.iter().any(|(known, _)| known == format));
    let Some(format) = format else { return Err("it is no JPEG, PNG, GIF or WebP".into()) };
    if format == ImageFormat::Jpeg && !is_whole_jpeg(&bytes) {
        return Err("it is cut off".into());
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(told)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS_MAX || decoder.total_bytes() > DECODER_BYTES {
        return Err(format!(
            "{width} × {height} pixels are too many; at most {} million are decoded",
            PIXELS_MAX / 1_000_000
        ));
    }
    let orientation = decoder.orientation().map_err(told)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(told)?;
    picture = scaled(picture);
    picture.apply_orientation(orientation);
    written(&picture, format == ImageFormat::Jpeg)
}

/// The decoder fills what is missing of a JPEG with grey. So this looks for the end marker behind the first scan: the
/// data of scans never hold its bytes, while a preview in the header may.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let [0xff, marker, high, low, ..] = rest {
        let length = 2 + usize::from(u16::from_be_bytes([*high, *low]));
        match marker {
            0xff => rest = &rest[1..],
            0xda => return rest.windows(2).any(|pair| pair == [0xff, 0xd9]),
            _ => rest = rest.get(length..).unwrap_or_default(),
        }
    }
    false
}

fn told(error: ImageError) -> String {
    match error {
        ImageError::Limits(_) => "it takes too much memory".into(),
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => "it is cut off".into(),
        // The texts of the decoders may have several lines.
        other => other.to_string().replace('\n', " "),
    }
}

fn scaled(picture: DynamicImage) -> DynamicImage {
    let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
    let by_edge = f64::from(EDGE_MAX) / width.max(height);
    let by_pixels = (SHOWN_PIXELS as f64 / (width * height)).sqrt();
    let factor = by_edge.min(by_pixels);
    if factor >= 1.0 {
        return picture;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is at most the edge")]
    let edge = |length: f64| ((length * factor).round() as u32).clamp(1, EDGE_MAX);
    picture.thumbnail_exact(edge(width), edge(height))
}

/// Photos as JPEG; drawings, and what is transparent, as PNG if that is small enough.
fn written(picture: &DynamicImage, is_photo: bool) -> Result<Vec<u8>, String> {
    let small = |bytes: &[u8]| bytes.len() as u64 <= PIECE_BYTES;
    if !is_photo {
        let mut png = Cursor::new(Vec::new());
        let eight_bit = DynamicImage::ImageRgba8(picture.to_rgba8());
        let plain =
            if picture.color().has_alpha() { eight_bit } else { DynamicImage::ImageRgb8(picture.to_rgb8()) };
        plain.write_to(&mut png, ImageFormat::Png).map_err(told)?;
        if small(png.get_ref()) {
            return Ok(png.into_inner());
        }
    }
    let opaque = on_white(picture);
    for quality in QUALITIES {
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, quality).encode_image(&opaque).map_err(told)?;
        if small(&jpeg) {
            return Ok(jpeg);
        }
    }
    Err("it does not get small enough".into())
}

/// JPEG knows no transparency.
fn on_white(picture: &DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.to_rgb8();
    }
    let mut opaque = RgbImage::new(picture.width(), picture.height());
    for (to, from) in opaque.pixels_mut().zip(picture.to_rgba8().pixels()) {
        let alpha = u16::from(from[3]);
        #[allow(clippy::cast_possible_truncation, reason = "a mean of two bytes is a byte")]
        let over = |colour: u8| ((u16::from(colour) * alpha + 255 * (255 - alpha)) / 255) as u8;
        *to = image::Rgb([over(from[0]), over(from[1]), over(from[2])]);
    }
    opaque
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use image::{Rgb, Rgba};

    /// A picture whose left upper quarter is red on blue.
    pub fn encoded(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let picture = RgbImage::from_fn(width, height, |x, y| {
            if x < width / 2 && y < height / 2 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) }
        });
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(picture).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// The header of a PNG of this size, and nothing that belongs to it.
    pub fn png_bomb(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        bytes.extend(b"\x08\x02\0\0\0");
        let crc = crc32(&bytes[12..]);
        bytes.extend(crc.to_be_bytes());
        bytes.extend(b"\0\0\0\x02IDAT\x78\x9c\0\0\0\0");
        bytes
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8)
                .fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
        })
    }

    fn fitted(bytes: &[u8]) -> Result<DynamicImage, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        fit(file).map(|bytes| {
            assert!(bytes.len() as u64 <= PIECE_BYTES);
            image::load_from_memory(&bytes).unwrap()
        })
    }

    #[test]
    fn each_format_is_read_and_a_large_picture_is_scaled_down() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP] {
            let small = fitted(&encoded(40, 30, format)).unwrap();
            assert_eq!((small.width(), small.height()), (40, 30), "{format:?}");
        }
        for (size, shown) in
            [((3000, 1000), (1568, 523)), ((2000, 2000), (1095, 1095)), ((60_000, 1), (1568, 1))]
        {
            let large = fitted(&encoded(size.0, size.1, ImageFormat::Png)).unwrap();
            assert_eq!((large.width(), large.height()), shown, "{size:?}");
        }
    }

    #[test]
    fn a_photo_that_was_taken_sideways_is_turned_upright() {
        let mut jpeg = encoded(64, 32, ImageFormat::Jpeg);
        // EXIF: one entry, orientation 6, "turn by 90 degrees".
        let exif =
            b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        jpeg.splice(2..2, exif.iter().copied());
        let upright = fitted(&jpeg).unwrap().to_rgb8();
        assert_eq!(upright.dimensions(), (32, 64));
        let (right, left) = (upright.get_pixel(28, 4), upright.get_pixel(4, 4));
        assert!(right[0] > 200 && left[2] > 200, "the red corner is at the upper right: {right:?} {left:?}");
    }

    #[test]
    fn of_an_animation_the_first_frame_is_shown() {
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
        for colour in [[9, 250, 9, 255], [250, 9, 9, 255]] {
            let frame = image::RgbaImage::from_pixel(8, 8, Rgba(colour));
            encoder.encode_frame(image::Frame::new(frame)).unwrap();
        }
        drop(encoder);
        assert!(fitted(&bytes).unwrap().to_rgb8().get_pixel(1, 1)[1] > 200);
    }

    #[test]
    fn what_is_transparent_stays_so_if_that_is_small() {
        let clear = DynamicImage::ImageRgba8(image::RgbaImage::from_pixel(8, 8, Rgba([1, 2, 3, 0])));
        let mut bytes = Cursor::new(Vec::new());
        clear.write_to(&mut bytes, ImageFormat::Png).unwrap();
        assert_eq!(fitted(bytes.get_ref()).unwrap().to_rgba8().get_pixel(0, 0)[3], 0);
        assert_eq!(on_white(&clear).get_pixel(0, 0).0, [255; 3]);
        let noise = image::RgbaImage::from_fn(1000, 1000, |x, y| {
            let n = (x * 7919 + y * 104_729).wrapping_mul(2_654_435_761).to_be_bytes();
            Rgba([n[0], n[1], n[2], 200])
        });
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageRgba8(noise).write_to(&mut bytes, ImageFormat::Png).unwrap();
        assert!(!fitted(bytes.get_ref()).unwrap().color().has_alpha(), "a JPEG");
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        for (width, height) in [(20_000, 20_000), (u32::MAX >> 1, 1), (1, 60_000_000)] {
            let why = fitted(&png_bomb(width, height)).unwrap_err();
            assert!(why.contains("too many") || why.contains("too much memory"), "{why}");
        }
        let mut gif = b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;".to_vec();
        gif.extend([0; 20]);
        assert!(fitted(&gif).unwrap_err().contains("65535 × 65535 pixels are too many"));
    }

    #[test]
    fn what_is_no_whole_picture_says_so() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            let whole = encoded(300, 200, format);
            for length in [whole.len() / 2, 20, 10] {
                let why = fitted(&whole[..length]).err().unwrap();
                assert!(!why.is_empty() && !why.contains('\n'), "{format:?} {length}: {why}");
            }
        }
        for bytes in [&b"just a text"[..], b"", b"<svg/>", b"BM\0\0"] {
            assert_eq!(fitted(bytes).unwrap_err(), "it is no JPEG, PNG, GIF or WebP");
        }
    }
}
