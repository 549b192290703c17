//! A signature inside the component that it is of: the custom section `sluicegate:signature`, of which there is one, anywhere on the
//! outermost level. It signs all bytes before it and all behind it, as if it was not there; the section is everything from its id
//! to its last byte. So no byte of the file is outside both.

use std::borrow::Cow;

use super::Distrust;

/// The custom section that holds a signature, as `FILE.minisig` would.
pub const SECTION: &str = "sluicegate:signature";
/// A component and the signature inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split<'a> {
    /// What the signature is of: the file without its section.
    pub content: Cow<'a, [u8]>,
    /// What the section holds.
    pub signature: Option<&'a [u8]>,
}

/// Takes the signature out of a component. What is no WebAssembly, or ends in the middle of a section, has none.
///
/// # Errors
/// [`Distrust::Twice`]: with two, one of them would be outside what the other one covers.
pub fn split(bytes: &[u8]) -> Result<Split<'_>, Distrust> {
    let whole = Split { content: Cow::Borrowed(bytes), signature: None };
    let mut found = None;
    let mut at = 8;
    if !bytes.starts_with(b"\0asm") {
        return Ok(whole);
    }
    while let Some((id, content, end)) = section(bytes, at) {
        if id == 0
            && let Some(signature) = named(content)
            && found.replace((at, end, signature)).is_some()
        {
            return Err(Distrust::Twice);
        }
        at = end;
    }
    Ok(match found {
        None => whole,
        Some((start, end, signature)) => {
            let content = [&bytes[..start], &bytes[end..]].concat();
            Split { content: Cow::Owned(content), signature: Some(signature) }
        }
    })
}

/// A component's section: its id, its content, where it ends.
fn section(bytes: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let id = *bytes.get(at)?;
    let (size, start) = leb128(bytes, at + 1)?;
    let end = start.checked_add(size)?;
    Some((id, bytes.get(start..end)?, end))
}

/// What a custom section holds, where it is that of the signature.
fn named(content: &[u8]) -> Option<&[u8]> {
    let (length, start) = leb128(content, 0)?;
    let end = start.checked_add(length)?;
    (content.get(start..end)? == SECTION.as_bytes()).then(|| &content[end..])
}

/// An unsigned LEB128 number of 32 bits, and where it ends.
fn leb128(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for place in 0..5 {
        let byte = *bytes.get(at + place)?;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(u32::try_from(value).ok()?).ok()?, at + place + 1));
        }
    }
    None
}

/// The component with this signature in a section of its own, at its end; in place of one that it had.
///
/// # Errors
/// [`Distrust::Twice`]
pub fn embed(bytes: &[u8], signature: &str) -> Result<Vec<u8>, Distrust> {
    let mut signed = split(bytes)?.content.into_owned();
    let mut content = Vec::with_capacity(SECTION.len() + signature.len() + 1);
    write_leb128(&mut content, SECTION.len());
    content.extend_from_slice(SECTION.as_bytes());
    content.extend_from_slice(signature.as_bytes());
    signed.push(0);
    write_leb128(&mut signed, content.len());
    signed.extend_from_slice(&content);
    Ok(signed)
}

fn write_leb128(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Custom sections with these contents.
    fn component(sections: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        for content in sections {
            bytes.push(0);
            write_leb128(&mut bytes, content.len() + 2);
            bytes.extend([1, b'x']);
            bytes.extend_from_slice(content);
        }
        bytes
    }

    proptest! {
        #[test]
        fn what_is_put_into_a_component_comes_out_of_it(
            sections in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5),
            signature in "[ -~\n]{0,300}",
        ) {
            let bytes = component(&sections);
            let signed = embed(&bytes, &signature).unwrap();
            let found = split(&signed).unwrap();
            prop_assert_eq!(found.signature, Some(signature.as_bytes()));
            prop_assert_eq!(&*found.content, &*bytes);
            // Signed once more, the section is replaced.
            prop_assert_eq!(&embed(&signed, &signature).unwrap(), &signed);
            let twice = [&signed[..], &signed[bytes.len()..]].concat();
            prop_assert_eq!(split(&twice), Err(Distrust::Twice));
            prop_assert_eq!(split(&bytes).unwrap(), Split { content: Cow::Borrowed(&bytes[..]), signature: None });
        }
    }
}
