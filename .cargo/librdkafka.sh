# librdkafka's `configure` leaves $PWD unquoted and fails in a path with a space. Cargo runs it on a
# copy in the target folder, so its paths are made relative there. Other scripts are left alone.
case $0 in
*/configure)
    if [ -f mklove/modules/configure.base ]; then
        sed -i 's|="$PWD/|="./|' mklove/modules/configure.base
    fi
    ;;
esac
