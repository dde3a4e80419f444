# gnuplot val_loss_time.gp draws val_loss_time.svg again
set terminal svg size 860,520 dynamic background rgb 'white'
set termoption noenhanced
set output 'val_loss_time.svg'
set datafile missing 'nan'
set grid
set key outside right top
set xlabel 'seconds in steps'
set ylabel 'held-out loss (nats a token)'
plot '01_baseline_val.dat' using 2:3 with linespoints pointtype 7 pointsize 0.4 title 'baseline', \
     '02_mtp_only_val.dat' using 2:3 with linespoints pointtype 7 pointsize 0.4 title 'mtp_only', \
     '03_muon_8bit_val.dat' using 2:3 with linespoints pointtype 7 pointsize 0.4 title 'muon_8bit', \
     '04_galore2_val.dat' using 2:3 with linespoints pointtype 7 pointsize 0.4 title 'galore2', \
     '05_full_val.dat' using 2:3 with linespoints pointtype 7 pointsize 0.4 title 'full'
