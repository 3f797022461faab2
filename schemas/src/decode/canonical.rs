//! Free objects as canonical JSON text, so that equal objects are equal text.
//!
//! | part | canonical form |
//! |---|---|
//! | names of an object | ascending by code point, each once |
//! | white space | none |
//! | strings | `\"` `\\` `\b` `\t` `\n` `\f` `\r` and `\u00xx` for other control characters; all else as it is |
//! | numbers | as they were written: nothing is lost of a long decimal, and `1.0` stays apart from `1` |
//!
//! **Invariant:** canonical text is never longer than the text it came from.

use super::{
    cursor::Cursor,
    reject::{Fault, Reason},
};

/// Makes canonical text; holds the room that takes.
#[derive(Debug, Default)]
pub(super) struct Canonical {
    /// Members of the objects that are open, outermost first.
    members: Vec<Member>,
    /// Their names, unescaped, one after another: what they are sorted by.
    names: Vec<u8>,
    /// Room for sorted members, and for unescaping.
    scratch: Vec<u8>,
}

/// One member: where its name stands in `names`, and its text in the output.
#[derive(Clone, Copy, Debug)]
struct Member {
    name: (usize, usize),
    text: (usize, usize),
}

impl Canonical {
    /// Reads the object at the cursor and appends its canonical text to `out`.
    pub(super) fn object(
        &mut self,
        cursor: &mut Cursor<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        // A fault may have left members of an earlier object behind.
        self.members.clear();
        self.names.clear();
        self.nested_object(cursor, 0, out)
    }

    fn value(
        &mut self,
        cursor: &mut Cursor<'_>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        match cursor.peek() {
            Some(b'{') => self.nested_object(cursor, depth, out),
            Some(b'[') => self.array(cursor, depth, out),
            Some(b'"') => {
                let text = cursor.string()?;
                write_string(text.text(&mut self.scratch)?, out);
                Ok(())
            }
            Some(b't' | b'f') => {
                let text: &[u8] = if cursor.boolean()? { b"true" } else { b"false" };
                out.extend_from_slice(text);
                Ok(())
            }
            Some(b'n') => {
                cursor.null()?;
                out.extend_from_slice(b"null");
                Ok(())
            }
            _ => {
                out.extend_from_slice(cursor.number()?.text);
                Ok(())
            }
        }
    }

    fn array(
        &mut self,
        cursor: &mut Cursor<'_>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        cursor.enter(depth)?;
        out.push(b'[');
        let mut more = cursor.first(b']');
        while more {
            self.value(cursor, depth + 1, out)?;
            more = cursor.another(b']')?;
            if more {
                out.push(b',');
            }
        }
        out.push(b']');
        Ok(())
    }

    fn nested_object(
        &mut self,
        cursor: &mut Cursor<'_>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let opened = cursor.at();
        cursor.enter(depth)?;
        out.push(b'{');
        let (first_member, first_name) = (self.members.len(), self.names.len());
        let mut more = cursor.first(b'}');
        while more {
            self.member(cursor, depth, out)?;
            more = cursor.another(b'}')?;
            if more {
                out.push(b',');
            }
        }
        self.sort(first_member, out).map_err(|fault| fault.beyond(opened))?;
        out.push(b'}');
        self.members.truncate(first_member);
        self.names.truncate(first_name);
        Ok(())
    }

    fn member(
        &mut self,
        cursor: &mut Cursor<'_>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let (name, text) = (self.names.len(), out.len());
        cursor.string()?.append_to(&mut self.names)?;
        let name = (name, self.names.len());
        write_string(&self.names[name.0..name.1], out);
        cursor.colon()?;
        out.push(b':');
        self.value(cursor, depth + 1, out)?;
        self.members.push(Member { name, text: (text, out.len()) });
        Ok(())
    }

    /// Brings the members from `first_member` on, which are the tail of `out`, into order.
    fn sort(&mut self, first_member: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        let Canonical { members, names, scratch } = self;
        let members = &mut members[first_member..];
        let name = |member: &Member| &names[member.name.0..member.name.1];
        if members.is_sorted_by(|a, b| name(a) < name(b)) {
            return Ok(());
        }
        let start = members.first().map_or(out.len(), |member| member.text.0);
        // Bytewise order of UTF-8 is the order of code points.
        members.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        if members.windows(2).any(|pair| name(&pair[0]) == name(&pair[1])) {
            return Err(Fault::new(Reason::DuplicateKey, 0, "a name twice in one object"));
        }
        scratch.clear();
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                scratch.push(b',');
            }
            scratch.extend_from_slice(&out[member.text.0..member.text.1]);
        }
        out.truncate(start);
        out.extend_from_slice(scratch);
        Ok(())
    }
}

pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    while let Some(plain) = rest.iter().position(|b| matches!(b, b'"' | b'\\' | ..0x20)) {
        out.extend_from_slice(&rest[..plain]);
        write_escape(rest[plain], out);
        rest = &rest[plain + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend([b'\\', short]);
}
