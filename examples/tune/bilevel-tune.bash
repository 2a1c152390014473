# Completion of bilevel-tune for bash: names of commands and flags from its own --help, else files.
_bilevel_tune() {
  local word=${COMP_WORDS[COMP_CWORD]} words
  if ((COMP_CWORD == 1)); then
    words=$(bilevel-tune --help | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p')
    mapfile -t COMPREPLY < <(compgen -W "$words --help --version" -- "$word")
  elif [[ $word == -* ]]; then
    words=$(bilevel-tune "${COMP_WORDS[1]}" --help 2>/dev/null |
      sed -nE 's/^  --\[no\]([a-z_]+).*/--\1\n--no\1/p; s/^  (--[a-z_]+=?).*/\1/p')
    mapfile -t COMPREPLY < <(compgen -W "$words --help" -- "$word")
    [[ ${COMPREPLY[0]:-} != *= ]] || compopt -o nospace
  else
    # After --flag=, which bash splits in two, and elsewhere.
    [[ $word != '=' ]] || word=
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
    compopt -o filenames
  fi
}
complete -F _bilevel_tune bilevel-tune
