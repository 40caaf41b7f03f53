# Makes a changelog as Debian writes it out of CHANGELOG.md.
# Variables: package, version (of what is not released yet), maintainer, today.

function end_of_item(    words, count, line, i) {
    if (item == "") return
    gsub(/`/, "", item)
    count = split(item, words, /[ \t]+/)
    line = "  *"
    for (i = 1; i <= count; i++) {
        if (length(line) + 1 + length(words[i]) > 78) {
            print line
            line = "   "
        }
        line = line " " words[i]
    }
    print line
    item = ""
}

function end_of_version() {
    end_of_item()
    if (date != "") printf "\n -- %s  %s\n\n", maintainer, date
    date = ""
}

/^## \[/ {
    end_of_version()
    match($0, /\[[^]]*\]/)
    name = substr($0, RSTART + 1, RLENGTH - 2)
    if (name == "Unreleased") {
        name = version
        date = today
    } else {
        "date -R -u -d " $NF | getline date
    }
    printf "%s (%s-1) unstable; urgency=medium\n", package, name
    next
}
date == "" { next }
/^### / { end_of_item(); printf "\n  [ %s ]\n", substr($0, 5); next }
/^- / { end_of_item(); item = substr($0, 3); next }
/^$/ { end_of_item(); next }
item != "" { sub(/^ +/, ""); item = item " " $0 }
END { end_of_version() }
